from __future__ import annotations

import contextlib
import io
import json
import logging
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from flask import Flask, Response, abort, request
from werkzeug.test import TestResponse

from sseflask.auth.access import require_subscribe
from sseflask.auth.tokens import sign
from sseflask.errors import ConfigError, Failure
from sseflask.store.names import Pattern
from sseflask.store.sqlite.run_tables import FORMAT
from sseflask.web import rate_limits as limits
from tests.service import KEY, SECRET, service


@pytest.fixture
def app() -> Iterator[Flask]:
    with service(SSEFLASK_MAX_BODY="2048") as made:
        yield made


def error(response: TestResponse) -> dict[str, object]:
    assert response.mimetype == "application/json"
    body = json.loads(response.data)
    assert list(body) == ["error"]
    assert list(body["error"]) == ["message", "type", "param", "code"]
    found: dict[str, object] = body["error"]
    return found


def test_an_unknown_route(app: Flask) -> None:
    response = app.test_client().get("/nothing/here")
    assert response.status_code == 404
    assert error(response) == {
        "message": "There is no such route on this server.",
        "type": "invalid_request_error",
        "param": None,
        "code": "not_found",
    }


def test_a_wrong_method_keeps_what_is_allowed(app: Flask) -> None:
    response = app.test_client().delete("/sse/v1")
    assert response.status_code == 405
    assert set(response.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS", "POST"}
    assert error(response)["code"] == "method_not_allowed"


@pytest.mark.parametrize(
    "kind",
    ["application/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"],
)
def test_a_body_over_the_limit(app: Flask, kind: str) -> None:
    response = app.test_client().post("/sse/v1", data=b"a=" + b"b" * 2048, content_type=kind)
    assert response.status_code == 413
    assert "SSEFLASK_MAX_BODY" in str(error(response)["message"])


@pytest.mark.parametrize(
    "kind",
    ["application/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"],
)
@pytest.mark.parametrize("size", [2048, 4096])
def test_a_body_in_chunks_over_the_limit(app: Flask, kind: str, size: int) -> None:
    # As a server hands it over: without a length, but with an end.
    response = app.test_client().post(
        "/sse/v1",
        input_stream=io.BytesIO(b"count=1&a=".ljust(size, b"b")),
        content_type=kind,
        headers={"Transfer-Encoding": "chunked"},
        environ_overrides={"wsgi.input_terminated": True},
    )
    assert response.status_code == 413
    error(response)


def test_a_body_in_chunks_below_the_limit(app: Flask) -> None:
    response = app.test_client().post(
        "/sse/v1",
        input_stream=io.BytesIO(b"count=1&a=".ljust(2047, b"b")),
        content_type="application/x-www-form-urlencoded",
        headers={"Transfer-Encoding": "chunked"},
        environ_overrides={"wsgi.input_terminated": True},
    )
    assert response.text == "id: 0\ndata: 0\n\n"


def test_retry_after_is_kept(app: Flask) -> None:
    @app.get("/busy")
    def busy() -> Response:
        response = Response(status=503)
        response.headers["Retry-After"] = "3"
        abort(response)

    @app.get("/full")
    def full() -> Response:
        abort(503, "Nobody is free.")

    client = app.test_client()
    assert client.get("/busy").headers["Retry-After"] == "3"
    response = client.get("/full")
    assert (response.status_code, error(response)["message"]) == (503, "Nobody is free.")
    assert error(response)["type"] == "server_error"


def test_a_redirect_stays_one(app: Flask) -> None:
    app.add_url_rule("/branch/", view_func=lambda: "here", endpoint="branch")
    response = app.test_client().get("/branch")
    assert response.status_code == 308
    assert response.headers["Location"].endswith("/branch/")


def test_an_unexpected_exception_is_logged_and_not_shown(
    app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    @app.get("/broken")
    def broken() -> str:
        raise RuntimeError("an internal detail")

    response = app.test_client().get("/broken")
    assert response.status_code == 500
    assert error(response)["code"] == "internal_server_error"
    assert "detail" not in response.text
    assert "RuntimeError: an internal detail" in caplog.text


def test_settings_reach_the_library() -> None:
    with service(
        SSEFLASK_HEARTBEAT="3",
        SSEFLASK_FIRST_BYTE="0.5",
        SSEFLASK_LIFETIME="60",
        SSEFLASK_MAX_BODY="4096",
        SSEFLASK_CHANNEL_LOG_BYTES="2000000",
    ) as app:
        assert app.config["SSEFLASK_CHANNEL_LOG_BYTES"] == 2_000_000
        assert app.config["SSEFLASK_HEARTBEAT"] == 3
        assert app.config["SSEFLASK_FIRST_BYTE"] == 0.5
        assert app.config["SSEFLASK_LIFETIME"] == 60
        assert app.config["MAX_CONTENT_LENGTH"] == 4096


def test_public_channels_reach_the_decisions() -> None:
    public = [Pattern.parse("scores.*")]
    with (
        service(SSEFLASK_PUBLIC_CHANNELS="news,scores.*") as app,
        app.test_request_context(environ_overrides={"REMOTE_ADDR": "192.0.2.7"}),
    ):
        assert require_subscribe(public).subject == ""
        with pytest.raises(Failure, match="needs a token"):
            require_subscribe([*public, Pattern.parse("**")])


def test_a_bad_setting_stops_the_start() -> None:
    with pytest.raises(ConfigError, match=r"^SSEFLASK_HEARTBEAT='0' is not allowed"):
        service(SSEFLASK_HEARTBEAT="0").__enter__()


@pytest.mark.parametrize(
    ("proxies", "seen"),
    [("0", "192.0.2.1 http"), ("1", "203.0.113.9 https"), ("2", "203.0.113.8 https")],
)
def test_client_addresses_as_far_as_proxies_are_trusted(proxies: str, seen: str) -> None:
    with service(SSEFLASK_TRUSTED_PROXIES=proxies) as app:
        app.add_url_rule("/me", view_func=lambda: f"{request.remote_addr} {request.scheme}")
        answer = app.test_client().get(
            "/me",
            environ_overrides={"REMOTE_ADDR": "192.0.2.1"},
            headers={
                "X-Forwarded-For": "127.0.0.1, 203.0.113.8, 203.0.113.9",
                "X-Forwarded-Proto": "https, https",
            },
        )
    assert answer.text == seen


@pytest.mark.parametrize(
    ("proxies", "scheme", "seen"),
    [
        ("2", "https", "https"),  # of two proxies only one says it
        ("3", "https, http", "https"),
        ("2", "https, http, http", "http"),  # the first is the client's own word
        ("2", "", "http"),
    ],
)
def test_schemes_as_far_as_proxies_are_trusted(proxies: str, scheme: str, seen: str) -> None:
    with service(SSEFLASK_TRUSTED_PROXIES=proxies) as app:
        app.add_url_rule("/me", view_func=lambda: request.scheme)
        answer = app.test_client().get("/me", headers={"X-Forwarded-Proto": scheme})
    assert answer.text == seen


def test_our_log_is_masked() -> None:
    ours = logging.getLogger("sseflask")
    written = io.StringIO()
    with (
        mock.patch.object(ours, "handlers", []),
        mock.patch.object(ours, "propagate", False),
        mock.patch("sys.stderr", written),
        service(SSEFLASK_SECRET=SECRET, OPENAI_API_KEY=KEY, SSEFLASK_HEARTBEET="1") as app,
    ):
        app.logger.error("%s, %s, /?access_token=abc", SECRET, KEY)
        logging.getLogger("sseflask.transport").info("and from everywhere: %s", KEY)
    lines = written.getvalue().splitlines()
    assert [line.partition("] ")[2] for line in lines] == [
        "[WARNING] SSEFLASK_HEARTBEET is not a setting and is ignored; "
        "did you mean SSEFLASK_HEARTBEAT?",
        "[ERROR] ***, ***, /?access_token=***",
        "[INFO] and from everywhere: ***",
    ]


def test_logging_that_others_have_set_up_is_left_alone() -> None:
    ours = logging.getLogger("sseflask")
    theirs = logging.NullHandler()
    with mock.patch.object(ours, "handlers", [theirs]), service():
        assert ours.handlers == [theirs]


@pytest.mark.parametrize(
    ("method", "path", "headers", "kept"),
    [
        ("GET", "/healthz", {}, "no-store"),
        ("GET", "/nothing", {}, "no-store"),
        ("DELETE", "/sse/v1", {}, "no-store"),
        ("GET", "/sse/v1?count=abc", {}, "no-store"),
        ("GET", "/sse/v1?count=0", {}, "no-store"),
        ("GET", "/sse/v1?count=1", {}, "no-store, no-transform"),
        ("HEAD", "/sse/v1", {}, "no-store, no-transform"),
        ("GET", "/sse/v1?count=1&access_token=a", {}, "private, no-store, no-transform"),
        ("GET", "/channels/a?access_token=a", {}, "private, no-store"),
        ("GET", "/sse/no_sse?access_token=a", {}, "private, no-store"),
        ("GET", "/sse/no_sse", {"Authorization": "Bearer a"}, "private"),
        ("GET", "/sse/no_sse", {"Cookie": "sseflask_session=a"}, "private"),
        ("GET", "/sse/no_sse", {}, None),
        ("POST", "/sse/openai_out", {}, "no-store, no-transform"),
        ("DELETE", "/session", {"Origin": "https://other.example"}, "no-store"),
        ("OPTIONS", "/sse/v1", {}, None),
        ("GET", "/sse/v1?count=1", {"Last-Event-ID": "0"}, "no-store"),
        ("GET", "/boom", {}, "no-store"),
    ],
)
def test_what_caches_and_browsers_get(
    app: Flask, method: str, path: str, headers: dict[str, str], kept: str | None
) -> None:
    app.add_url_rule("/boom", view_func=lambda: f"{1 // 0}")
    with app.test_client(use_cookies=False).open(path, method=method, headers=headers) as response:
        assert response.headers.get("Cache-Control") == kept
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Referrer-Policy"] == "no-referrer"


def test_a_204_has_no_type(app: Flask) -> None:
    response = app.test_client().get("/sse/v1?count=1", headers={"Last-Event-ID": "0"})
    assert response.status_code == 204
    assert "Content-Type" not in response.headers


def test_what_the_server_understands_at_all(app: Flask) -> None:
    response = app.test_client().options("/", environ_overrides={"PATH_INFO": "*"})
    assert response.status_code == 204
    assert response.headers["Allow"] == "GET, HEAD, POST, DELETE, OPTIONS"
    assert app.test_client().options("/nothing").status_code == 404


@pytest.mark.parametrize(
    ("headers", "body", "refused"),
    [
        ({"Content-Encoding": "gzip"}, b"\x1f\x8b", True),
        ({"Content-Encoding": "x-unknown"}, b"hello", True),
        ({"Content-Encoding": "identity"}, b"hello", False),
        ({"Content-Type": "text/plain; charset=iso-8859-1"}, b"\xc3\xa4", True),
        ({"Content-Type": "text/plain; charset=iso-8859-1"}, b"hello", False),
        ({"Content-Type": "text/plain; charset=UTF-8"}, "ä".encode(), False),
        ({"Content-Type": "text/plain; charset=utf-16le"}, "hello".encode("utf-16le"), True),
    ],
)
def test_how_a_body_may_be_encoded(headers: dict[str, str], body: bytes, refused: bool) -> None:
    """Nothing is stored as something that it is not."""
    with service(SSEFLASK_SECRET=SECRET) as app:
        token = sign(SECRET, "a", time.time() + 60, publish=["a"])
        headers = {"Authorization": f"Bearer {token}", **headers}
        response = app.test_client().post("/channels/a", data=body, headers=headers)
        assert response.status_code == (415 if refused else 201)
        if refused:
            assert error(response)["code"] == "unsupported_media_type"
            assert response.headers.get("Accept-Encoding") == (
                "identity" if "Content-Encoding" in headers else None
            )
        else:
            id_ = json.loads(response.data)["id"]
            where = response.headers["Location"]
            assert where == f"/channels/a?last_event_id={id_.rpartition('-')[0]}-0"


@pytest.mark.parametrize("coding", ["gzip, chunked", "deflate,chunked"])
def test_how_a_body_may_be_transferred(coding: str) -> None:
    """gunicorn undoes the chunks alone, and hands over what is compressed."""
    with service(SSEFLASK_SECRET=SECRET) as app:
        token = sign(SECRET, "a", time.time() + 60, publish=["a"])
        response = app.test_client().post(
            "/channels/a",
            input_stream=io.BytesIO(b"\x1f\x8b"),
            headers={"Authorization": f"Bearer {token}", "Transfer-Encoding": coding},
            environ_overrides={"wsgi.input_terminated": True},
        )
        assert response.status_code == 501
        assert error(response)["code"] == "unsupported_transfer_coding"


def test_a_subject_publishes_so_often() -> None:
    with service(SSEFLASK_SECRET=SECRET, SSEFLASK_PUBLISH_RATE_LIMIT="2/hour") as app:
        client = app.test_client()
        tokens = [sign(SECRET, name, time.time() + 60, publish=["**"]) for name in "ab"]
        statuses = [
            client.post(f"/channels/{n}", data="x", headers={"Authorization": f"Bearer {token}"})
            for token in tokens
            for n in range(3)
        ]
        assert [each.status_code for each in statuses] == [201, 201, 429] * 2
        assert error(statuses[2])["code"] == "rate_limited"
        assert 0 < int(statuses[2].headers["Retry-After"]) <= 3600


def test_a_client_is_counted_by_its_network() -> None:
    with service(SSEFLASK_RATE_LIMIT="2/hour", SSEFLASK_TRUSTED_PROXIES="1") as app:
        client = app.test_client()

        def ask(address: str) -> int:
            headers = {"X-Forwarded-For": f"9.9.9.9, {address}"}
            return client.post("/sse/openai_out", data={}, headers=headers).status_code

        one = ["1.2.3.4:1111", "::ffff:1.2.3.4", "1.2.3.4:2222"]
        other = ["[2001:db8::1]:80", "2001:db8::ffff:2", "2001:db8::3"]
        assert [ask(address) for address in (*one, *other)] == [200, 200, 429] * 2


def test_all_who_ask_the_demo_model_are_counted_together() -> None:
    with (
        mock.patch.object(limits, "_OF_DEMO", "2/hour"),
        service(SSEFLASK_TRUSTED_PROXIES="1", SSEFLASK_RATE_LIMIT="1/hour") as app,
    ):
        client = app.test_client()

        def ask(address: str) -> TestResponse:
            headers = {"X-Forwarded-For": address}
            return client.post("/v1/chat/completions", json={"messages": []}, headers=headers)

        asking = ["1.1.1.1", "1.1.1.1", "2.2.2.2", "3.3.3.3"]
        answers = [ask(address) for address in asking]
        assert [each.status_code for each in answers] == [200, 429, 200, 503]
        assert answers[-1].json is not None
        assert answers[-1].json["error"]["code"] == "demo_busy"
        assert 0 < int(answers[-1].headers["Retry-After"]) <= 3600
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-cache"}
        told = client.get("/sse/openai_out", headers=headers | {"X-Forwarded-For": "4.4.4.4"})
        assert told.status_code == 200
        assert b"retry:" in told.data


def test_a_rate_that_is_off_is_off_for_the_demo_model() -> None:
    with (
        mock.patch.object(limits, "_OF_DEMO", "1/hour"),
        service(SSEFLASK_RATE_LIMIT="off") as app,
    ):
        client = app.test_client()
        for _ in range(2):
            assert client.post("/v1/chat/completions", json={"messages": []}).status_code == 200


@pytest.mark.parametrize("path", ["/v1//models", "//v1/models", "/channels//a", "///"])
def test_an_address_with_slashes_too_many_is_none(path: str) -> None:
    with service() as app:
        assert app.test_client().get(f"{path}?access_token=secret").status_code == 404


def test_the_start_says_that_a_store_cannot_be_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "channels.db"
    path.mkdir()
    with service(SSEFLASK_CHANNEL_LOG=str(path)):
        (told,) = [each for each in caplog.records if each.levelno == logging.ERROR]
        assert told.getMessage() == (
            f"Channels are answered with 503, as their file can't be used: {path} is not a file: "
            "choose another path."
        )


def test_the_start_says_that_a_store_is_of_another_version(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "runs.db"
    with service(SSEFLASK_RUN_LOG=str(path)) as app:
        assert app.test_client().delete(f"/runs/{'0' * 32}").status_code == 404
    assert not [each for each in caplog.records if each.levelno == logging.ERROR]
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 99")
    with service(SSEFLASK_RUN_LOG=str(path)) as app:
        (told,) = [each for each in caplog.records if each.levelno == logging.ERROR]
        assert told.getMessage() == (
            f"Completions are answered with 503, as their file can't be used: {path} was made by a "
            f"newer version of sseflask (its format is 99, this version knows "
            f"{FORMAT.version}): move it away to begin "
            "without its history, or install that version again."
        )
        assert app.test_client().delete(f"/runs/{'0' * 32}").status_code == 503


@pytest.mark.parametrize(
    ("public", "tells"), [("", True), ("news", True), ("**", False), ("**,sseflask.live", True)]
)
def test_no_stranger_reads_the_figures_unless_the_operator_says_so(
    public: str, tells: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        mock.patch("sseflask.app.LiveFigures") as figures,
        service(SSEFLASK_PAGE="on", SSEFLASK_PUBLIC_CHANNELS=public),
    ):
        pass
    assert figures.return_value.begin.called == tells
    assert ("SSEFLASK_PUBLIC_CHANNELS would let everybody" in caplog.text) != tells
