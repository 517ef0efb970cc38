"""What is written in place of gunicorn's response, compared with what gunicorn writes itself."""

from __future__ import annotations

import io
import string
from collections.abc import Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn import util
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.http.message import Request
from gunicorn.http.unreader import IterUnreader
from gunicorn.http.wsgi import Response
from hypothesis import given
from hypothesis import strategies as st

from sseflask.logs import once, request_ids
from sseflask.transport.gunicorn import server_response as module
from sseflask.transport.gunicorn.server_response import KEY, ServerResponse, format_head

DATE = "Sat, 28 Nov 2026 19:00:00 GMT"
STATUSES = (
    "200 OK",
    "200",
    "201 Created",
    "204 No Content",
    "304 Not Modified",
    "404 Nicht da \xe4",
)

tokens = st.text(string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~", min_size=1, max_size=12)
values = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"))
known = st.sampled_from(
    [
        ("Connection", "close"),
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Keep-Alive", "timeout=5"),
        ("Transfer-Encoding", "chunked"),
        ("Content-Length", "17"),
        ("Content-Type", "text/event-stream"),
        ("Date", "never"),
        ("Server", "mine"),
    ]
)
headers = st.lists(st.one_of(known, st.tuples(tokens, values)), max_size=8)
requests = st.builds(
    lambda method, version, lines: f"{method} / {version}\r\nHost: a\r\n{lines}\r\n".encode(),
    st.sampled_from(["GET", "HEAD", "POST"]),
    st.sampled_from(["HTTP/1.0", "HTTP/1.1"]),
    st.sampled_from(["", "Connection: close\r\n", "Connection: keep-alive\r\n"]),
)


@pytest.fixture(autouse=True, scope="module")
def one_date() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(util, "http_date", lambda *_: DATE)
        patch.setattr(module, "_date", lambda _: DATE)
        yield


def gunicorn_response(request: bytes, sock: Any = None, **settings: Any) -> Any:
    config = Config()
    for name, value in settings.items():
        config.set(name, value)
    return Response(Request(config, IterUnreader(iter([request])), ("", 0)), sock, config)


class Recorded:
    """A socket that keeps what is sent."""

    def __init__(self) -> None:
        self.data = b""

    def sendall(self, data: bytes) -> None:
        self.data += data


@given(requests, st.sampled_from(STATUSES), headers, st.booleans())
def test_the_head_is_gunicorns_byte_for_byte(
    request: bytes, status: str, headers: list[tuple[str, str]], closes: bool
) -> None:
    ours, theirs = gunicorn_response(request), gunicorn_response(request, sock := Recorded())
    for response in (ours, theirs):
        response.start_response(status, headers)
        if closes:
            response.force_close()
    theirs.send_headers()
    assert format_head(ours) == sock.data
    assert sock.data.count(DATE.encode()) >= 1


def test_headers_that_many_responses_have_are_there_once() -> None:
    """gunicorn's access log still finds them."""
    responses = [gunicorn_response(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n") for _ in range(2)]
    for response in responses:
        response.start_response("200 OK", [("X-One", "1"), ("X-Two", "2")])
        ServerResponse(response).share_headers()
    first, second = responses
    assert first.headers is second.headers
    assert [*first.headers] == [("X-One", "1"), ("X-Two", "2")]
    log = Logger(Config())
    environ = dict.fromkeys(("REQUEST_METHOD", "RAW_URI", "SERVER_PROTOCOL"), "-")
    atoms: Any = log.atoms(first, first.req, environ, timedelta(0))
    assert atoms["{x-two}o"] == "2"


@given(requests, st.sampled_from(STATUSES), headers)
def test_a_plain_start_is_gunicorns(
    request: bytes, status: str, headers: list[tuple[str, str]]
) -> None:
    ours, theirs = gunicorn_response(request), gunicorn_response(request, Recorded())
    if ours.req.method == "HEAD" or status[:3] in ("204", "304"):
        return  # no stream
    if ServerResponse(ours).start_plain(status, headers, ours.start_response):
        theirs.start_response(status, headers)
        assert ServerResponse(ours).describes_stream(status)
        assert ServerResponse(ours).chunked == theirs.chunked
        assert format_head(ours) == format_head(theirs)
        names = ("status", "status_code", "headers", "response_length", "upgrade")
        for name in names:
            assert getattr(ours, name) == getattr(theirs, name)
    else:
        assert ours.status is None


PLAIN = [("Content-Type", "text/event-stream"), ("X-A", ""), ("X-B", "\xe9 \t!")]


@pytest.mark.parametrize(
    ("status", "headers", "is_plain"),
    [
        ("200 OK", PLAIN, True),
        ("201 ", PLAIN, True),
        ("200", PLAIN, False),
        ("100 Continue", [], False),
        ("200 OK\r\nX-A: b", [], False),
        ("200 OK", [("X-A", "b\r\nX-B: c")], False),
        ("200 OK", [("X-A", "b\nX-B: c")], False),
        ("200 OK", [("X-A: b\r\nX-B", "c")], False),
        ("200 OK", [("X A", "b")], False),
        ("200 OK", [("X-A", " b")], False),
        ("200 OK", [("X-A", "\u20ac")], False),
        *(
            ("200 OK", [*PLAIN, (name, "17")], False)
            for name in (*util.hop_headers, "Content-Length", "content-encoding")
        ),
    ],
)
def test_which_start_is_plain(status: str, headers: list[tuple[str, str]], is_plain: bool) -> None:
    response = gunicorn_response(b"GET / HTTP/1.1\r\n\r\n")
    server = ServerResponse(response)
    assert server.start_plain(status, headers, response.start_response) is is_plain
    assert not server.start_plain(status, headers, lambda *_: response.write)
    assert (response.status is None) is not is_plain
    if is_plain:
        assert not server.start_plain(status, headers, response.start_response), "started before"
        server.reset()
        assert server.start_plain(status, headers, response.start_response)


@pytest.mark.parametrize("keepalive", [0, 5])
@pytest.mark.parametrize("worker_ends", [False, True])
@pytest.mark.parametrize(
    ("request_line", "more", "chunked", "client_closes"),
    [
        ("GET / HTTP/1.1", "", True, False),
        ("GET / HTTP/1.1", "Connection: close\r\n", True, True),
        ("GET / HTTP/1.0", "", False, True),
        ("GET / HTTP/1.0", "Connection: keep-alive\r\n", False, False),
    ],
)
def test_a_response_that_is_taken_over(
    keepalive: int, worker_ends: bool, request_line: str, more: str, chunked: bool,
    client_closes: bool,
) -> None:  # fmt: skip
    request = f"{request_line}\r\nHost: a\r\n{more}\r\n".encode()
    response = gunicorn_response(request, sock := Recorded(), keepalive=keepalive)
    response.start_response("200 OK", [("Content-Type", "text/event-stream")])
    if worker_ends or not keepalive:
        response.force_close()  # as gunicorn's handle_request does
    server = ServerResponse(response)
    assert server.is_http1
    assert server.describes_stream("200 OK")
    environ: dict[str, Any] = {"wsgi.early_hints": sock.sendall}
    head = server.take_over(environ)
    assert head.chunked == chunked
    assert head.reusable == bool(chunked and keepalive and not client_closes)
    # What is chunked has an end of its own; without chunks the connection's end is the body's.
    said = [line for line in head.data.split(b"\r\n") if line.startswith(b"Connection")]
    if head.reusable:
        assert said == [b"Connection: keep-alive"]
    else:
        assert said == ([b"Connection: close"] if client_closes or not chunked else [])

    # What gunicorn does with it from here on.
    environ["wsgi.early_hints"]([("Link", "</style.css>; rel=preload")])
    response.write(b"a middleware's")
    response.close()
    assert sock.data == b""
    assert response.headers_sent
    assert response.should_close()
    if head.reusable:
        server.keep_open()
        assert not response.should_close()


def test_what_middleware_adds_to_a_stream_is_said_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(once, "_warned", set())
    response = gunicorn_response(b"GET / HTTP/1.1\r\n\r\n", Recorded())
    response.start_response("200 OK", [])
    ServerResponse(response).take_over({})
    for piece in (b"", b"more", b"more"):
        response.write(piece)
    (message,) = caplog.messages
    assert KEY in message


@pytest.mark.parametrize(
    ("status", "headers", "unchanged"),
    [
        ("200 OK", [("Content-Type", "text/event-stream")], True),
        ("200 Fine", [], True),
        ("206 Partial Content", [], False),
        ("200 OK", [("Content-Length", "5")], False),
        ("200 OK", [("content-encoding", "gzip")], False),
        (None, [], False),
    ],
)
def test_whether_middleware_has_changed_the_response(
    status: str | None, headers: list[tuple[str, str]], unchanged: bool
) -> None:
    response = gunicorn_response(b"GET / HTTP/1.1\r\n\r\n")
    if status is not None:
        response.start_response(status, headers)
    assert ServerResponse(response).describes_stream("200 OK") is unchanged


def test_another_response_after_a_reset() -> None:
    response = gunicorn_response(b"GET / HTTP/1.1\r\n\r\n", sock := Recorded())
    response.start_response("200 OK", [("Content-Length", "5"), ("X-A", "b")])
    ServerResponse(response).reset()
    response.start_response("503 Service Unavailable", [("Retry-After", "1")])
    response.write(b"later")
    response.close()
    assert sock.data.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"X-A" not in sock.data
    assert sock.data.endswith(b"5\r\nlater\r\n0\r\n\r\n")


def test_the_access_log_is_given_the_size() -> None:
    response = gunicorn_response(b"GET / HTTP/1.1\r\n\r\n")
    ServerResponse(response).count_sent(1234)
    assert response.sent == 1234


def test_the_requests_body_can_be_put_back() -> None:
    request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbodyGET /next"
    server = ServerResponse(gunicorn_response(request))
    body = server.request_body
    assert body.read(4) == b"body"
    server.set_unread_body(io.BytesIO(b"body"))
    assert body.read() == b"body"
    assert server.next_request == b"GET /next"
    server.append_to_next_request(b"er")
    assert server.next_request == b"GET /nexter"
    assert server.response.req.unreader.read(5) == b"GET /"
    assert server.response.req.unreader.read() == b"nexter"


@pytest.mark.parametrize(("setting", "has"), [(None, False), ("off", False), ("auto", True)])
def test_whether_a_proxy_introduces_connections(setting: str | None, has: bool) -> None:
    settings = {} if setting is None else {"proxy_protocol": setting}
    server = ServerResponse(gunicorn_response(b"GET / HTTP/1.1\r\n\r\n", **settings))
    assert server.has_proxy_line is has


def test_a_response_of_another_class_is_no_concern_of_ours() -> None:
    class Derived(Response):
        pass

    assert not ServerResponse(Derived.__new__(Derived)).is_http1
    assert not ServerResponse(None).is_http1


@pytest.fixture
def no_request() -> Iterator[None]:
    """The worker leaves the request when it waits for the next one."""
    yield
    request_ids.forget()


@pytest.mark.usefixtures("no_request")
@pytest.mark.parametrize("adopted", [True, False])
def test_what_the_worker_calls(adopted: bool) -> None:
    """Middleware does what it does at the end of a response, also of one that has been adopted."""
    done: list[str] = []

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            done.append("read")
            return iter(())

        def close(self) -> None:
            done.append("closed")

    def application(environ: Any, _: Any) -> Any:
        server = environ[KEY]
        assert server.response is response
        assert not server.returned
        server.adopted = adopted
        done.append("called")
        return Body()

    response = SimpleNamespace()
    start_response = SimpleNamespace(__self__=response)
    wsgi = module.hand_over_responses(application)
    environ: dict[str, Any] = {"REQUEST_METHOD": "GET", "PATH_INFO": "/"}
    if adopted:
        with pytest.raises(StopIteration):
            wsgi(environ, start_response)
        assert done == ["called", "read", "closed"]
    else:
        assert isinstance(wsgi(environ, start_response), Body)
        assert done == ["called"]
    assert environ[KEY].returned
