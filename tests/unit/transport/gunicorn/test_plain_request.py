"""Plain requests, compared with gunicorn's own parser and environment for the same bytes."""

from __future__ import annotations

import io
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http.message import Request
from gunicorn.http.unreader import IterUnreader
from gunicorn.http.wsgi import Response, create
from hypothesis import given, settings
from hypothesis import strategies as st

from sseflask.transport.gunicorn.plain_request import Environments, PlainRequest
from sseflask.transport.gunicorn.server_response import ServerResponse

CLIENT, SERVER = ("192.0.2.7", 1234), ("192.0.2.1", 80)
REQUESTS = [
    b"GET /a?b=c HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\nGET /next",
    b"GET /p%20q HTTP/1.0\r\nhost: x\r\nX-A:  v \t\r\nx-a:w\r\nConnection: keep-alive\r\n\r\n",
    b"POST /?q HTTP/1.1\r\nContent-Length: 3\r\nContent-Type: text/plain\r\n\r\nabcd",
    b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nrest",
]
#: What parsers disagree about, and requests are smuggled with.
PIECES = [
    *(b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b"/", b"//", b"?", b"#", b"%", b"_", b"[", b"*"),
    *(
        b"\0",
        b"\x7f",
        b"\x80",
        b"\x85",
        b"\xa0",
        b"\xdf",
        b"\xff",
        b"\x0b",
        b"\x0c",
        b" folded\r\n",
    ),
    *(b"Host: y\r\n", b"Content-Type: b\r\n", b"Content-Length: 1\r\n", b"Content-Length: +3\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip, chunked\r\n"),
    *(b"Expect: 100-continue\r\n", b"Expect: more\r\n", b"Connection: close\r\n", b"X_A: 1\r\n"),
    *(b"X-Forwarded-Proto: https\r\n", b"X-Forwarded-SSL: on\r\n", b"Script_Name: /a\r\n"),
    *(b"X: " + b"a" * 90 + b"\r\n", b"X: 1\r\n" * 10, b"a" * 120, b"HTTP/1.1", b"HTTP/2.0"),
]
mutations = st.lists(
    st.tuples(
        st.integers(0, 200), st.sampled_from([0, 0, 0, 1, 4]), st.sampled_from([b"", *PIECES])
    ),
    max_size=3,
)
configurations = st.fixed_dictionaries(
    {},
    optional={
        "limit_request_line": st.sampled_from([0, 20, 100]),
        "limit_request_fields": st.sampled_from([2, 8]),
        "limit_request_field_size": st.sampled_from([0, 30, 80]),
        "header_map": st.sampled_from(["drop", "refuse", "dangerous"]),
        "forwarded_allow_ips": st.sampled_from(["192.0.2.7", "*"]),
        "forwarder_headers": st.just("X_A,SCRIPT_NAME"),
        "secure_scheme_headers": st.just({"X-FORWARDED-SSL": "on"}),
        "strip_header_spaces": st.just(True),
        "permit_obsolete_folding": st.just(True),
        "permit_unconventional_http_method": st.just(True),
        "casefold_http_method": st.just(True),
    },
)


class Silent:
    """A socket; 100 Continue goes into it."""

    def send(self, data: bytes) -> None:
        pass


def config(**values: Any) -> Config:
    made = Config()
    for name, value in values.items():
        made.set(name, value)
    return made


def outcome(cfg: Config, data: bytes, plain: bool) -> Any:
    """All that can be seen of a request, or the error, which decides about the response."""
    unreader, client = IterUnreader(iter([data])), Silent()
    try:
        request: Any = (PlainRequest if plain else Request)(cfg, unreader, CLIENT)
        if plain:
            response, environ = Environments(cfg).create(request, client, CLIENT, SERVER)
        else:
            response, environ = create(request, client, CLIENT, SERVER, cfg)  # type: ignore[call-overload]  # a socket
            environ["wsgi.multithread"] = True
        try:
            body = request.body.read()
        except Exception as error:  # a chunk that is none
            body = repr(error)
    except Exception as error:
        return type(error), str(error)
    # Hooks and loggers may look at all of it.
    simple = (str, int, tuple, list, type(None))
    seen = {name: value for name, value in vars(request).items() if isinstance(value, simple)}
    seen = {name: value for name, value in seen.items() if name not in ("plain", "_has_body")}
    environ = {
        name: value if isinstance(value, simple) else type(value).__name__.removeprefix("_")
        for name, value in environ.items()
        if name not in ("wsgi.errors", "wsgi.input")
    }
    return (
        seen,
        environ,
        body,
        unreader.buf.getvalue(),
        request.should_close(),
        vars(response)["headers"],
    )


@settings(max_examples=600)
@given(st.sampled_from(REQUESTS), mutations, configurations)
def test_a_request_is_what_it_is_to_gunicorn(
    data: bytes, changes: list[tuple[int, int, bytes]], values: dict[str, Any]
) -> None:
    for at, dropped, piece in changes:
        data = data[:at] + piece + data[at + dropped :]
    cfg = config(**values)
    assert outcome(cfg, data, plain=True) == outcome(cfg, data, plain=False)


@pytest.mark.parametrize("data", REQUESTS)
def test_usual_requests_are_plain(data: bytes) -> None:
    """Otherwise the other test compares gunicorn with itself."""
    request = PlainRequest(config(secure_scheme_headers={}), IterUnreader(iter([data])), CLIENT)
    assert request.plain


def test_what_says_the_scheme_is_left_to_gunicorn() -> None:
    data = b"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-Proto: https\r\n\r\n"
    assert not PlainRequest(config(), IterUnreader(iter([data])), CLIENT).plain


def test_a_head_in_two_pieces_is_left_to_gunicorn() -> None:
    pieces = [b"GET /a HTTP/1.1\r\nHo", b"st: x\r\n\r\n"]
    request = PlainRequest(config(), IterUnreader(iter(pieces)), CLIENT)
    assert (request.plain, request.path, request.headers) == (False, "/a", [("HOST", "x")])


def test_nothing_is_read_where_there_is_no_body() -> None:
    data = b"GET / HTTP/1.1\r\nHost: x\r\n\r\nmore"
    for _ in range(2):
        request: Any = PlainRequest(config(), IterUnreader(iter([data])), CLIENT)
        assert (request.body.read(), request.body.readline(), [*request.body]) == (b"", b"", [])
        assert request.unreader.buf.getvalue() == b"more"
        client: Any = Silent()
        ServerResponse(Response(request, client, config())).set_unread_body(io.BytesIO())


def test_a_long_name_is_left_to_gunicorn_and_not_kept() -> None:
    """Names are kept for the next request, so they must not take much memory."""
    name = "X" * 65
    data = f"GET / HTTP/1.1\r\nHost: x\r\n{name}: y\r\n\r\n".encode()
    request = PlainRequest(config(), IterUnreader(iter([data])), CLIENT)
    assert (request.plain, request.headers) == (False, [("HOST", "x"), (name, "y")])


def test_no_request_is_the_connections_end() -> None:
    with pytest.raises(StopIteration):
        PlainRequest(config(), IterUnreader(iter([])), CLIENT)


def test_errors_go_where_they_are_to_go_at_that_time(capsys: pytest.CaptureFixture[str]) -> None:
    """Log files are reopened at SIGUSR1."""
    cfg = config(errorlog="-")
    environments = Environments(cfg)
    request = PlainRequest(cfg, IterUnreader(iter([REQUESTS[0]])), CLIENT)
    _, environ = environments.create(request, Silent(), CLIENT, SERVER)
    environ["wsgi.errors"].close()
    print("a message", file=environ["wsgi.errors"], flush=True)
    assert capsys.readouterr().err == "a message\n"


@pytest.mark.parametrize("prefix", ["/a", "/b"])
def test_a_prefix_in_the_environment(monkeypatch: pytest.MonkeyPatch, prefix: str) -> None:
    monkeypatch.setenv("SCRIPT_NAME", prefix)
    cfg = config()
    assert outcome(cfg, REQUESTS[0], plain=True) == outcome(cfg, REQUESTS[0], plain=False)


def test_a_hooks_changes_of_a_request_are_seen() -> None:
    cfg = config(pre_request=lambda _worker, _request: None)
    request = PlainRequest(cfg, IterUnreader(iter([REQUESTS[0]])), CLIENT)
    request.headers.append(("SCRIPT_NAME", "/a"))
    _, environ = Environments(cfg).create(request, Silent(), CLIENT, SERVER)
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("/a", "")
