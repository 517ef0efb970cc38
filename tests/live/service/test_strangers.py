"""The service as a platform starts it, and unknown clients."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.live.kit.connection import Connection, fetch
from tests.live.kit.fronts import FRONTS, front
from tests.live.kit.servers import Server
from tests.live.kit.services import SECRET, authorization, make_token, production
from tests.live.kit.waiting import until


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {"SSEFLASK_SECRET": SECRET, "SSEFLASK_PUBLIC_CHANNELS": "lobby"}
    with production(tmp_path_factory.mktemp("strangers"), settings) as server:
        yield server


@pytest.mark.parametrize("name", FRONTS)
def test_nothing_leads_past_what_a_proxy_forbids(
    guarded: Server, name: str, tmp_path: Path
) -> None:
    """gunicorn believes SCRIPT_NAME and PATH_INFO headers of whoever comes from 127.0.0.1, and
    Werkzeug takes all slashes in front of a path for one."""
    with front(name, guarded, tmp_path, "/healthz") as proxy:
        assert fetch(guarded, "/v1/models").status == 200  # past the proxy it is there
        assert fetch(proxy, "/v1/models").status == 403
        for header in ("SCRIPT_NAME", "SCRIPT-NAME", "Script_Name", "X-Forwarded-Prefix"):
            assert fetch(proxy, "/zz/v1/models", headers={header: "/zz"}).status == 404, header
        for header in ("PATH_INFO", "PATH-INFO", "RAW_URI", "X-Original-URL", "X-Rewrite-URL"):
            headers = {header: "/v1/models"}
            assert b"data" not in fetch(proxy, "/healthz", headers=headers).body, header
        others = ("//v1/models", "/%2fv1/models", "/./v1/models", "/zz/../v1/models", "/V1/models")
        for path in others:
            assert fetch(proxy, path).status in (400, 403, 404), path


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Protocol", "ssl"),
        ("X-Forwarded-Ssl", "on"),
        ("X_Forwarded_Proto", "https"),
        ("Forwarded", "proto=https"),
    ],
)
def test_no_header_makes_a_scheme(guarded: Server, header: str, value: str) -> None:
    """The cookie says what scheme the service takes the request for; no proxy is trusted here."""
    token = make_token()
    headers = {**authorization(token), "Connection": "close", header: value}
    answer = fetch(guarded, "/session", method="POST", headers=headers, body=b"")
    assert answer.status == 204
    assert "secure" not in answer.headers["set-cookie"].lower()


FORGED = "%0a2026-11-28 [CRITICAL] forged%0d%1b[2J%7f%c2%85%e2%80%a8%e2%80%ae".replace(" ", "%20")


def _basic(user: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(f'{user}:x'.encode()).decode()}"}


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", f"/x{FORGED}?a={FORGED}", {}),
        ("GET", "/healthz", _basic(unquote(FORGED))),
        ("GET", "/healthz", {"Referer": "\x85\u00ad", "User-Agent": "\x9b2J"}),
        ("POST", f"/channels/{FORGED}", {}),
        ("GET", f"/runs/{FORGED}", {}),
        ("GET", "/healthz", {"X-Wrong\x1b": "a"}),
        ("GET\x1b[2J", "/healthz", {}),
        ("GET", "/healthz", {"Transfer-Encoding": "\x85, chunked"}),
        ("GET", "/healthz\x1b[2J", {}),
    ],
)
def test_nothing_of_a_request_steers_the_log(
    guarded: Server, method: str, path: str, headers: dict[str, str]
) -> None:
    before = len(guarded.raw_log())
    _say(guarded, method, path, headers)
    until(lambda: guarded.raw_log()[before:].endswith(b"\n"), "a line in the log")
    _assert_printable(guarded.raw_log()[before:])


def test_nothing_of_a_subscribers_request_steers_the_log(guarded: Server) -> None:
    """The line is written when the stream has ended, long after the request."""
    before = len(guarded.raw_log())
    user = _basic(unquote(FORGED))["Authorization"]
    with Connection(guarded) as connection:
        connection.request("/channels?c=lobby", headers={"Cookie": user, "User-Agent": "\x9b2J"})
        assert connection.head().status == 200
    until(lambda: b"/channels" in guarded.raw_log()[before:], "the line of the subscriber")
    _assert_printable(guarded.raw_log()[before:])


def _say(server: Server, method: str, path: str, headers: dict[str, str]) -> bytes:
    """Send a request as it is, and give all that comes of it."""
    lines = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    with Connection(server) as connection:
        connection.socket.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
        answer = connection.rest()
    assert answer
    return answer


def _assert_printable(log: bytes) -> None:
    for line in log.decode().splitlines():  # at each kind of line break
        assert line.isprintable(), line
        assert not line.startswith("2026-11-28"), line


def test_a_flood_of_bad_requests_does_not_flood_the_log(guarded: Server) -> None:
    before = len(guarded.raw_log())
    for _ in range(300):
        _say(guarded, "GET\x1b[2J", "/healthz", {})
    shown = guarded.raw_log()[before:].count(b"Invalid request from ip=")
    assert 0 < shown <= 200  # two minutes' worth: a busy machine may need one or two for it


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        (8000, [8000] * 90),
        (8300, []),
        (10, [8300]),
        (10, [10] * 101),
    ],
)
def test_the_head_of_a_request_is_bounded(guarded: Server, line: int, fields: list[int]) -> None:
    headers = {f"X-{n}": "x" * size for n, size in enumerate(fields)}
    answer = _say(guarded, "GET", f"/healthz?{'x' * line}", headers).split(b"\r\n")[0]
    fits = line < 8190 and len(fields) <= 100 and all(size < 8190 for size in fields)
    assert answer.split()[1] in ([b"200"] if fits else [b"414", b"431", b"400"])
