"""Bodies that are read past httpcore, and those that it reads itself."""

from __future__ import annotations

import contextlib
import gc
import gzip
import os
import struct
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from socket import SO_LINGER, SOL_SOCKET
from typing import Any

import httpcore2
import httpx2
import pytest

from sseflask.completions.upstream_transport import UpstreamTransport, raw_body
from tests.processes import ROOT
from tests.scripted_upstream import STREAM_HEAD, Exchange, Script, upstream

_FILE = "tests/unit/completions/test_upstream_transport.py"
_THIS = f"{_FILE}::test_the_same_under_gevent"

HEAD = STREAM_HEAD
DATA = b"data: one\n\n", "data: 你\r\n\r\n".encode(), b"data: " + b"x" * 70_000 + b"\n\n"
BODY = b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in DATA) + b"0\r\n\r\n"


@pytest.fixture
def client() -> Iterator[httpx2.Client]:
    with httpx2.Client(transport=UpstreamTransport(), timeout=10) as client:
        yield client


@contextlib.contextmanager
def answer(client: httpx2.Client, script: Script) -> Iterator[httpx2.Response]:
    with upstream(script) as server, client.stream("GET", server.url) as response:
        yield response


def sent(*pieces: bytes) -> Script:
    """Each piece in a packet of its own, as far as the client looks in between."""

    def script(exchange: Exchange) -> None:
        for piece in pieces:
            exchange.send(piece)

    return script


def the_clients_own(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many pieces httpcore's own parser has given."""
    count = 0
    read = httpcore2.ConnectionPool.handle_request

    class Counted:
        def __init__(self, stream: Any) -> None:
            self.stream = stream

        def __iter__(self) -> Iterator[bytes]:
            nonlocal count
            for piece in self.stream:
                count += 1
                yield piece

        def close(self) -> None:
            self.stream.close()

    def counted(self: httpcore2.ConnectionPool, request: httpcore2.Request) -> httpcore2.Response:
        response = read(self, request)
        response.stream = Counted(response.stream)
        return response

    monkeypatch.setattr(httpcore2.ConnectionPool, "handle_request", counted)
    return lambda: count


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    return the_clients_own(monkeypatch)


@pytest.mark.parametrize(
    "pieces",
    [
        (HEAD + BODY,),
        (HEAD, BODY),
        (HEAD[:-1], HEAD[-1:] + BODY),
        (HEAD[:-2], HEAD[-2:] + BODY),
        (HEAD[:-3], HEAD[-3:] + BODY[:1], BODY[1:]),
        (HEAD, BODY[:-5], BODY[-5:-2], BODY[-2:]),
        (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + HEAD + BODY,),
        (HEAD.replace(b"\r\n", b"\n") + BODY,),
        (HEAD + BODY[:-2], b"Trailer: x\r\n\r\n"),
        (HEAD.replace(b"chunked", b"Chunked") + BODY,),
    ],
)
def test_usual_bodies(
    client: httpx2.Client, own: Callable[[], int], pieces: tuple[bytes, ...]
) -> None:
    with upstream(sent(*pieces)) as server:
        for _ in range(3):
            with client.stream("GET", server.url) as response:
                assert b"".join(raw_body(response)) == b"".join(DATA)
    assert own() == 0
    assert server.connections == 1  # which the client has found to be at the end of a response


@pytest.mark.parametrize(
    "pieces",
    [
        (HEAD.replace(b"Transfer-Encoding: chunked", b"Content-Length: 5") + b"\n\r\n\na",),
        (HEAD.replace(b"Transfer-Encoding: chunked", b"Content-Length: 5"), b"\n\r", b"\n\na"),
    ],
    ids=["length", "length, cut"],
)
def test_other_bodies_are_the_clients(
    client: httpx2.Client, own: Callable[[], int], pieces: tuple[bytes, ...]
) -> None:
    def script(exchange: Exchange) -> None:
        sent(*pieces)(exchange)
        exchange.hang_up()

    with answer(client, script) as response:
        assert b"".join(raw_body(response)) == b"\n\r\n\na"
    assert own() > 0


def test_a_compressed_body(client: httpx2.Client, own: Callable[[], int]) -> None:
    data = gzip.compress(b"".join(DATA))
    head = HEAD.replace(b"chunked", b"chunked\r\nContent-Encoding: gzip")
    stream = b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data)
    with upstream(sent(head + stream)) as server:
        for _ in range(3):
            with client.stream("GET", server.url) as response:
                assert b"".join(raw_body(response)) == b"".join(DATA)
            assert client.get(server.url).content == b"".join(DATA)
    assert (own(), server.connections) == (0, 1)


def test_a_silent_body_that_is_read_by_the_client(client: httpx2.Client) -> None:
    def script(exchange: Exchange) -> None:
        exchange.send(HEAD + b"3\r\nabc\r\n")
        assert exchange.left()

    with upstream(script) as server, pytest.raises(httpx2.ReadTimeout):
        client.get(server.url, timeout=0.2)


@pytest.mark.parametrize("piece", [b"HTTP/1.1 103 Early Hints\r\n\r\n", b"HTTP/1.1 103 A\r\nB: c"])
def test_heads_without_an_end(client: httpx2.Client, piece: bytes) -> None:
    def script(exchange: Exchange) -> None:
        try:
            while True:
                exchange.send(piece * 1000)
        except OSError:
            return

    with upstream(script) as server, pytest.raises(httpx2.TransportError):
        client.get(server.url)


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_a_body(client: httpx2.Client, status: int) -> None:
    head = HEAD.replace(b"200 OK", b"%d None" % status)
    with upstream(sent(head)) as server:
        for _ in range(2):
            assert client.get(server.url, timeout=2).content == b""  # there is nothing to wait for
    assert server.connections == 1


def test_a_body_until_the_end(client: httpx2.Client, own: Callable[[], int]) -> None:
    """Each of its events ends with a blank line, as a head does."""

    def script(exchange: Exchange) -> None:
        exchange.send(HEAD.replace(b"Transfer-Encoding: chunked\r\n", b"") + DATA[0] * 10_000)
        exchange.hang_up()

    with answer(client, script) as response:
        pieces = list(raw_body(response))
    assert b"".join(pieces) == DATA[0] * 10_000
    assert len(pieces) < 500
    assert own() == 0


def test_a_connection_of_another_client(own: Callable[[], int]) -> None:
    with httpx2.Client() as client, answer(client, sent(HEAD + BODY)) as response:
        assert b"".join(raw_body(response)) == b"".join(DATA)
    assert own() > 0


@pytest.mark.parametrize(
    "end",
    [
        b"",
        b"5",
        b"5\r\nab",
        b"5\r\nabcde",
        b"5\r\nabcde\r",
        b"zz\r\n",
        b"5\r\nabcdefg",
        b"0\r\n",
        b"0\r\nTrailer: x\r\n",
        b"0\r\n no trailer\r\n\r\n",
    ],
)
def test_a_body_that_breaks_off_or_is_none(client: httpx2.Client, end: bytes) -> None:
    def script(exchange: Exchange) -> None:
        exchange.send(HEAD + b"3\r\nabc\r\n" + end)
        exchange.hang_up()

    found: list[bytes] = []
    with answer(client, script) as response, pytest.raises(httpx2.RemoteProtocolError):
        found.extend(raw_body(response))
    assert b"".join(found).startswith(b"abc")


def test_a_reset(client: httpx2.Client) -> None:
    def script(exchange: Exchange) -> None:
        exchange.send(HEAD + b"3\r\nabc\r\n")
        # No time to linger: closing it is a reset.
        exchange.connection.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        os.close(exchange.connection.detach())

    with answer(client, script) as response, pytest.raises(httpx2.HTTPError):
        list(raw_body(response))


def test_leaving_in_the_middle(client: httpx2.Client) -> None:
    left: list[bool] = []

    def script(exchange: Exchange) -> None:
        exchange.send(HEAD + b"3\r\nabc\r\n")
        left.append(exchange.left())

    with answer(client, script) as response:
        assert next(raw_body(response)) == b"abc"
    assert left == [True]


def test_more_than_a_response(client: httpx2.Client) -> None:
    """What comes after it is no answer to the next request."""
    with upstream(sent(HEAD + BODY + HEAD + b"0\r\n\r\n")) as server:
        for _ in range(3):
            with client.stream("GET", server.url) as response:
                assert b"".join(raw_body(response)) == b"".join(DATA)
    assert server.connections == 3


@pytest.mark.parametrize("length", [0, 2, 70_000])
def test_more_than_an_answer_in_one_piece(client: httpx2.Client, length: int) -> None:
    content = b"\n" * length
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length
    surplus = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    with upstream(sent(head + content + surplus)) as server:
        for _ in range(3):
            assert client.get(server.url).content == content
    assert server.connections == 3


def test_the_same_under_gevent() -> None:
    """As in production; there each read waits for the socket first."""
    program = (
        "from gevent import monkey; monkey.patch_all(); import pytest, sys;"
        "sys.exit(pytest.main(sys.argv[1:]))"
    )
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--deselect", _THIS]
    done = subprocess.run(
        [sys.executable, "-c", program, *options, _FILE],
        capture_output=True,
        text=True,
        timeout=100,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_a_closed_connection_is_free_at_once() -> None:
    with upstream(sent(HEAD + BODY)) as server:
        client = httpx2.Client(transport=UpstreamTransport())
        with client.stream("GET", server.url) as response:
            list(raw_body(response))
        connection = weakref.ref(response.extensions["network_stream"])
        del response
        client.close()
        gc.disable()
        try:
            del client
            assert connection() is None
        finally:
            gc.enable()


def test_other_answers_of_a_watched_connection(client: httpx2.Client) -> None:
    # Blank lines in them are no heads.
    content = b"[1,\r\n\r\n\n\n2]"

    def script(exchange: Exchange) -> None:
        exchange.answer(400, content)

    with upstream(script) as server:
        for _ in range(3):
            assert client.get(server.url).content == content
    assert server.connections == 1
