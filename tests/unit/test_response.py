"""Responses through Flask's test client, which is a server like any other."""

from __future__ import annotations

import http
import importlib
import importlib.util
import itertools
import json
import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask, Response, abort, g, request
from flask.typing import ResponseReturnValue
from gunicorn.http import wsgi
from werkzeug.test import EnvironBuilder

from sseflask import SSE, Decoder, Event, EventError, EventSourceResponse, Failure
from sseflask.logs import once as notices
from sseflask.testing import open_stream
from tests.live.kit.waiting import until


def make_app() -> Flask:
    app = Flask(__name__)
    SSE(app)
    return app


def endless() -> Iterator[Event]:
    for n in itertools.count():
        yield Event(n, id=n)


def error_of(data: str) -> dict[str, Any]:
    error: dict[str, Any] = json.loads(data)["error"]
    return error


# -- contexts ------------------------------------------------------------------------------------


@pytest.fixture
def looking_around() -> Flask:
    """Its generators look at ``request`` and ``g`` for each event, and once more at the end."""
    app = make_app()
    app.config["ENDS"] = []

    @app.get("/<kind>")
    def stream(kind: str) -> ResponseReturnValue:
        g.name = kind
        numbers = itertools.count() if kind == "endless" else range(3)

        def events() -> Iterator[str]:
            try:
                for n in numbers:
                    yield f"{n} {request.path} {request.args['q']} {g.name}"
            finally:
                app.config["ENDS"].append(f"{request.path} {g.name}")

        return EventSourceResponse(events())

    return app


@pytest.mark.parametrize("kind", ["endless", "finite"])
def test_a_client_that_keeps_the_context(looking_around: Flask, kind: str) -> None:
    with looking_around.test_client() as client:
        with open_stream(client, f"/{kind}?q=你") as stream:
            data = [event.data for event in stream.read(3)]
            assert data == [f"{n} /{kind} 你 {kind}" for n in range(3)]
            if kind == "finite":
                assert stream.read(1) == []
        assert looking_around.config["ENDS"] == [f"/{kind} {kind}"]
        assert request.path == f"/{kind}", "as Flask promises"
        assert request.args["q"] == "你"
        assert g.name == kind
        assert client.get("/finite?q=next").status_code == 200
        assert request.args["q"] == "next"


@pytest.mark.parametrize("keeps_context", [False, True])
def test_streams_within_each_other(looking_around: Flask, keeps_context: bool) -> None:
    client = looking_around.test_client()
    if keeps_context:
        client = client.__enter__()
    try:
        with open_stream(client, "/endless?q=outer") as outer:
            assert [event.data for event in outer.read(1)] == ["0 /endless outer endless"]
            with open_stream(client, "/endless?q=inner") as inner:
                assert [event.data for event in inner.read(1)] == ["0 /endless inner endless"]
            assert looking_around.config["ENDS"] == ["/endless endless"], "the inner one"
            # More than may have been made before the inner one was left.
            data = [event.data for event in outer.read(100)]
            assert data == [f"{n} /endless outer endless" for n in range(1, 101)]
    finally:
        if keeps_context:
            client.__exit__(None, None, None)
    assert looking_around.config["ENDS"] == ["/endless endless"] * 2


# -- lists ---------------------------------------------------------------------------------------


def test_a_list_for_a_client_that_returns() -> None:
    app = make_app()

    @app.get("/")
    def view() -> ResponseReturnValue:
        return EventSourceResponse([Event("a", id=1), Event("b", id=2)])

    with open_stream(app.test_client(), "/", headers={"Last-Event-ID": "0"}) as stream:
        assert stream.response.status_code == 200
        assert "Content-Length" not in stream.response.headers
        events = [(event.data, event.last_event_id) for event in stream.events()]
        assert events == [("a", "1"), ("b", "2")]
        assert stream.decoder.retry is None
    app.config["SSEFLASK_RETRY"] = 200
    raw = app.test_client().get("/", headers={"Last-Event-ID": "0"})
    assert raw.get_data() == b"retry: 200\nid: 1\ndata: a\n\nid: 2\ndata: b\n\n"
    assert "Content-Length" not in raw.headers
    del app.config["SSEFLASK_RETRY"]
    raw = app.test_client().get("/")
    assert raw.get_data() == b"id: 1\ndata: a\n\nid: 2\ndata: b\n\n"
    assert "Content-Length" not in raw.headers


@pytest.mark.parametrize("name", ["SSEFLASK_RETRY", "SSEFLASK_RETRY_JITTER"])
@pytest.mark.parametrize("value", [-1, 1.5, True, "200", 2**31])
def test_a_reconnection_time_that_is_none(name: str, value: Any) -> None:
    app = make_app()
    app.config[name] = value
    app.add_url_rule("/", view_func=lambda: EventSourceResponse(["a"]))
    app.testing = True
    with pytest.raises(ValueError, match=f"{name}.*milliseconds, a whole number from 0"):
        app.test_client().get("/")


def test_a_plain_response_gets_no_retry_line() -> None:
    """Its bytes are the application's."""
    app = make_app()
    app.config["SSEFLASK_RETRY"] = 200
    app.add_url_rule(
        "/", view_func=lambda: Response(iter(["data: a\n\n"]), mimetype="text/event-stream")
    )
    assert app.test_client().get("/").get_data() == b"data: a\n\n"


@pytest.mark.parametrize(
    ("own", "kept"),
    [
        ({}, "no-store, no-transform"),
        ({"Cache-Control": "no-cache"}, "no-cache, no-transform"),
        ({"Cache-Control": "max-age=60, No-Transform"}, "max-age=60, No-Transform"),
    ],
)
@pytest.mark.parametrize("kind", ["own response", "upgraded"])
def test_no_proxy_stores_or_gathers_events(kind: str, own: dict[str, str], kept: str) -> None:
    app = Flask(__name__)
    SSE(app)

    @app.get("/")
    def view() -> Response:
        if kind == "upgraded":
            return Response(iter(["data: a\n\n"]), mimetype="text/event-stream", headers=own)
        return EventSourceResponse(iter("a"), headers=own)

    for method in ("GET", "HEAD"):
        response = app.test_client().open("/", method=method)
        assert response.headers.getlist("Cache-Control") == [kept]
        assert response.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("own_page", [False, True])
@pytest.mark.parametrize("headers", [{}, {"Last-Event-ID": "3"}], ids=["new", "returning"])
def test_a_list_that_begins_with_what_cannot_be_sent(
    own_page: bool, headers: dict[str, str]
) -> None:
    app = make_app()

    @app.get("/")
    def view() -> ResponseReturnValue:
        return EventSourceResponse([object(), "never"])

    def page(error: EventError) -> ResponseReturnValue:
        return {"page": str(error)}, 422

    if own_page:
        app.register_error_handler(EventError, page)
    response = app.test_client().get("/", headers=headers)
    if own_page:
        assert response.status_code == 422
        assert response.json is not None
        assert "object" in response.json["page"]
    else:
        assert response.status_code == 500
        assert response.mimetype == "text/html"
        assert b"Internal Server Error" in response.get_data()
    assert b"never" not in response.get_data()


def test_a_list_with_something_later_that_cannot_be_sent() -> None:
    app = make_app()

    @app.get("/")
    def view() -> ResponseReturnValue:
        return EventSourceResponse(["first", object(), "never"])

    with open_stream(app.test_client(), "/") as stream:
        assert stream.response.status_code == 200
        first, failure = stream.events()
    assert first.data == "first"
    assert failure.event == "failure"
    assert error_of(failure.data)["code"] == "internal_error"


# -- expiry --------------------------------------------------------------------------------------


def wait_until_past(moment: float) -> None:
    until(lambda: time.time() > moment, "the token's time is over")


def test_expiry_of_a_fast_stream_read_slowly() -> None:
    app = make_app()
    expires_at = time.time() + 1

    @app.get("/")
    def view() -> ResponseReturnValue:
        return EventSourceResponse(endless(), expires_at=expires_at)

    with open_stream(app.test_client(), "/") as stream:
        assert [event.data for event in stream.read(3)] == ["0", "1", "2"]
        wait_until_past(expires_at)
        # Although more events are waiting in the queue.
        (failure,) = stream.read(1)
        assert failure.event == "failure"
        assert error_of(failure.data)["code"] == "token_expired"
        assert stream.read(1) == [], "it has ended"


def test_expiry_of_a_silent_stream() -> None:
    app = make_app()
    go_on = threading.Event()

    @app.get("/")
    def view() -> ResponseReturnValue:
        def events() -> Iterator[str]:
            yield "first"
            go_on.wait(10)

        return EventSourceResponse(events(), expires_at=time.time() + 0.3)

    with open_stream(app.test_client(), "/") as stream:
        try:
            first, failure = stream.events()
        finally:
            go_on.set()
    assert first.data == "first"
    assert error_of(failure.data)["code"] == "token_expired"


@pytest.mark.parametrize("rest", ["there", "missing"])
def test_expiry_inside_an_event(rest: str) -> None:
    app = make_app()
    go_on = threading.Event()
    if rest == "there":
        go_on.set()
    expires_at = time.time() + 1

    @app.get("/")
    def view() -> ResponseReturnValue:
        def pieces() -> Iterator[bytes]:
            yield b"data: whole\n\n"
            yield b"data: be"
            go_on.wait(10)
            yield b"gun"
            for _ in range(100):
                yield b", on and on"
            yield b"\n\n"

        return EventSourceResponse(pieces(), expires_at=expires_at)

    received = b""
    with open_stream(app.test_client(), "/") as stream:
        pieces = stream.response.iter_encoded()
        try:
            while not received.endswith(b"data: be"):
                received += next(pieces)
            wait_until_past(expires_at)
            late: list[bytes] = []
            with pytest.raises(Failure, match="expired"):
                late.extend(pieces)
        finally:
            go_on.set()
    received += b"".join(late)
    assert received.startswith(b"data: whole\n\ndata: be")
    assert [event.data for event in Decoder().feed(received)] == ["whole"]
    assert not received.endswith((b"\n", b"\r"))


@pytest.mark.parametrize(
    ("status", "type_"), [(451, "invalid_request_error"), (503, "server_error")]
)
def test_an_answer_that_comes_too_late_is_reported_by_its_status(status: int, type_: str) -> None:
    app = make_app()

    @app.get("/")
    def view() -> ResponseReturnValue:
        def events() -> Iterator[str]:
            yield "first"
            abort(Response("an answer of its own", status))

        return EventSourceResponse(events())

    with open_stream(app.test_client(), "/") as stream:
        _, failure = stream.events()
    error = error_of(failure.data)
    assert error["message"] == http.HTTPStatus(status).phrase
    assert error["type"] == type_


# -- settings ------------------------------------------------------------------------------------

BAD_TIMES = [1e12, 0, -1, float("nan"), float("inf"), "x", "15", True, False]


@pytest.mark.parametrize("value", BAD_TIMES, ids=repr)
def test_a_heartbeat_that_is_none(value: Any) -> None:
    with pytest.raises(ValueError, match="heartbeat") as caught:
        EventSourceResponse([], heartbeat=value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("value", [*BAD_TIMES, None], ids=repr)
@pytest.mark.parametrize("upgraded", [False, True])
def test_a_configured_heartbeat_that_is_none(
    value: Any, upgraded: bool, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app()
    app.config["SSEFLASK_HEARTBEAT"] = value
    closed = []

    @app.get("/")
    def view() -> ResponseReturnValue:
        items = iter(["data: never\n\n"])
        if upgraded:
            response = Response(items, mimetype="text/event-stream")
        else:
            response = EventSourceResponse(items)
        response.call_on_close(lambda: closed.append(True))
        return response

    response = app.test_client().get("/")
    assert response.status_code == 500
    assert b"never" not in response.get_data()
    logged = [r.exc_info[1] for r in caplog.records if r.exc_info]
    assert [type(error) for error in logged] == [ValueError]
    assert "SSEFLASK_HEARTBEAT" in str(logged[0])
    assert repr(value) in str(logged[0])
    assert closed == [True]


# -- failures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [0, 1])
def test_a_failure_that_utf8_cannot_carry(after: int) -> None:
    app = make_app()

    @app.get("/")
    def view() -> ResponseReturnValue:
        def events() -> Iterator[str]:
            for n in range(after):
                yield str(n)
            raise Failure("bad \ud800 你", status=418, code="odd \udfff")

        return EventSourceResponse(events())

    with open_stream(app.test_client(), "/") as stream:
        if not after:
            assert stream.response.status_code == 418
            assert stream.response.mimetype == "application/json"
            return
        first, failure = stream.events()
    assert first.data == "0"
    assert failure.event == "failure"
    error = error_of(failure.data)
    assert error["message"] in ("bad ? 你", "bad \ufffd 你")
    assert error["code"] in ("odd ?", "odd \ufffd")


# -- what is upgraded ----------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", [None, "gzip"])
def test_a_compressed_response_is_left_alone(encoding: str | None) -> None:
    app = make_app()
    pieces = [b"\x1f\x8b\x08\x00", b"\x00\n\n\xff"]

    @app.get("/")
    def view() -> ResponseReturnValue:
        response = Response(iter(pieces), mimetype="text/event-stream")
        if encoding:
            response.headers["Content-Encoding"] = encoding
        return response

    response = app.test_client().get("/")
    assert ("X-Accel-Buffering" in response.headers) == (encoding is None)
    assert response.headers.get("Content-Encoding") == encoding
    assert response.get_data() == b"".join(pieces)


def test_a_failing_compressed_response_gets_no_event_of_ours() -> None:
    app = make_app()

    @app.get("/")
    def view() -> ResponseReturnValue:
        def pieces() -> Iterator[bytes]:
            yield b"\x1f\x8b\n\n"
            raise ArithmeticError("halfway")

        headers = {"Content-Encoding": "gzip"}
        return Response(pieces(), mimetype="text/event-stream", headers=headers)

    response = app.test_client().get("/")
    received: list[bytes] = []
    with pytest.raises(ArithmeticError, match="halfway"):
        received.extend(response.iter_encoded())
    response.close()
    assert b"failure" not in b"".join(received)


# -- HTTP/2 --------------------------------------------------------------------------------------


#: An older gunicorn has no HTTP/2, or one whose responses are like the others.
HTTP2 = all(map(importlib.util.find_spec, ("gunicorn.http2", "gunicorn.http2.response")))


@pytest.mark.parametrize("header", [{}, {"Version": "2"}, {"Version": "(2, 0)"}], ids=repr)
@pytest.mark.parametrize("http2", [True, False] if HTTP2 else [False])
def test_the_warning_about_http2(
    http2: bool,
    header: dict[str, str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(notices, "_warned", set())
    app = make_app()

    @app.get("/")
    def view() -> ResponseReturnValue:
        return EventSourceResponse(endless())

    module = importlib.import_module("gunicorn.http2.response") if http2 else wsgi
    kind: Any = module.HTTP2Response if http2 else module.Response
    monkeypatch.setattr(kind, "start_response", lambda *_: None)
    gunicorn_response = kind.__new__(kind)
    builder = EnvironBuilder("/", headers=list(header.items()))
    environ = builder.get_environ()
    builder.close()
    environ.update({"gunicorn.socket": object(), "wsgi.multithread": True})
    with caplog.at_level(logging.WARNING, "sseflask"):
        for _ in range(2):
            body: Any = app.wsgi_app(environ, gunicorn_response.start_response)
            body.close()
    warnings = [record.message for record in caplog.records if "HTTP/2" in record.message]
    assert len(warnings) == (1 if http2 else 0)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit, BaseException])
def test_what_is_no_exception_is_an_error_of_the_stream(error: type[BaseException]) -> None:
    """In a thread of a server's, which would end with it and leave its client waiting."""
    app = Flask("somebody")
    SSE(app)

    @app.get("/<int:after>")
    def view(after: int) -> Response:
        def items() -> Iterator[bytes]:
            for n in range(after):
                yield f"data: {n}\n\n".encode()
            raise error("secret")

        return Response(items(), mimetype="text/event-stream")

    with ThreadPoolExecutor(1) as pool:
        early, late = (pool.submit(app.test_client().get, path).result() for path in ("/0", "/1"))
        content = pool.submit(late.get_data).result()
    assert early.status_code == 500
    assert late.status_code == 200
    assert content.startswith(b"data: 0\n\nevent: failure\n")
    assert b"secret" not in content + early.data


def test_a_signal_ends_the_server_and_not_its_stream() -> None:
    """It reaches the main thread, in the middle of whatever that does."""
    app = Flask("somebody")
    SSE(app)

    @app.get("/")
    def view() -> Response:
        def items() -> Iterator[bytes]:
            yield b"data: 0\n\n"
            raise SystemExit

        return Response(items(), mimetype="text/event-stream")

    response = app.test_client().get("/", buffered=False)
    with pytest.raises(SystemExit):
        response.get_data()
    response.close()
