"""Clients that do what no client should, and requests that come in the way of a stream."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import threading

import pytest

from tests.live.kit.clients import Stream, open_stream, wake
from tests.live.kit.connection import Connection, fetch
from tests.live.kit.kinds import on_every_server, on_gevent
from tests.live.kit.servers import Server


@on_every_server
def test_killed_streams_leave_other_requests_alone(server: Server, tag: str) -> None:
    """A kill must not hit what the same worker serves next or meanwhile."""
    done = threading.Event()
    answers: list[tuple[int, str]] = []

    def ask() -> None:
        while not done.is_set():
            with Connection(server) as connection:
                keep_alive = True
                while keep_alive and not done.is_set():
                    connection.request(f"/pause?seconds=0.005&q={len(answers)}")
                    head = connection.head()
                    answers.append((head.status, json.loads(connection.body(head))["query"]))
                    keep_alive = head.headers.get("connection", "").lower() != "close"

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for n in range(40):
            with open_stream(server, f"/numbers?tag={tag}-{n}&count=30&interval=0.01") as stream:
                assert stream.next().data == "0"
                if n % 2:
                    stream.connection.reset()
            if not n % 5:
                server.wait_for_mark(f"{tag}-{n}", "finally")
        for n in range(40):
            server.wait_for_mark(f"{tag}-{n}", "finally")
    finally:
        done.set()
        asking.join(20)
    assert not asking.is_alive()
    assert answers
    assert answers == [(200, str(n)) for n in range(len(answers))]


@on_gevent
def test_a_request_behind_a_killed_stream_is_not_answered(server: Server, tag: str) -> None:
    """Pipelined, then left by half-close: the kill ends the stream, the connection with it."""
    with Connection(server) as connection:
        connection.request(f"/silent?tag={tag}&heartbeat=9999")
        stream = Stream(connection)
        assert stream.next().data == "first"
        connection.request("/pause?seconds=0.01&q=pipelined")
        connection.socket.shutdown(socket.SHUT_WR)
        server.wait_for_mark(tag, "finally")
        with contextlib.suppress(ConnectionResetError):
            while piece := connection.socket.recv(65536):
                assert b"pipelined" not in piece
                assert b"HTTP/1.1" not in piece
    assert server.marks(tag) == ["started", "finally"]
    assert fetch(server, "/hello?q=after").status == 200


@on_every_server
def test_pipelined_bytes_do_no_harm(server: Server, tag: str) -> None:
    """They are neither taken for leaving, nor read in a busy loop, nor do they cut the end."""
    with Connection(server) as connection:
        connection.request(f"/silent?tag={tag}&heartbeat=0.2&wakes=1")
        connection.request("/hello?q=pipelined")
        stream = Stream(connection)
        assert stream.next().data == "first"
        connection.request("/hello?q=late")
        process = server.serving()
        before = sum(process.cpu_times()[:2])
        assert stream.next_comments(6) == ["ping"] * 6
        assert sum(process.cpu_times()[:2]) - before < 0.6, "of about 1.2 s: it spins"
        wake(server, tag)
        assert stream.next().data == "woken 1"
        assert stream.rest() == []
    server.wait_for_mark(tag, "finished")


def chunked(body: bytes) -> bytes:
    pieces = [body[at : at + 10_000] for at in range(0, len(body), 10_000)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


@on_every_server
@pytest.mark.parametrize("size", [100, 600_000], ids=["small", "large"])
@pytest.mark.parametrize("in_chunks", [False, True], ids=["length", "chunked"])
def test_a_body_that_the_view_never_reads(server: Server, size: int, in_chunks: bool) -> None:
    body = b"b" * size
    if in_chunks and server.kind == "flask":
        body = b""  # werkzeug's server leaves chunked bodies to the application
    headers = {"Transfer-Encoding": "chunked"} if in_chunks else {}
    with open_stream(
        server,
        "/unread",
        method="POST",
        headers=headers,
        body=chunked(body) if in_chunks else body,
    ) as stream:
        assert [event.data for event in stream.rest()] == [f"{n} {'x' * 1000}" for n in range(20)]


@on_every_server
@pytest.mark.parametrize("size", [0, 100, 300_000])
def test_a_body_that_the_generator_reads_late(server: Server, size: int) -> None:
    body = b"b" * size
    with open_stream(server, "/late-body", method="POST", body=body) as stream:
        digest = hashlib.sha256(body).hexdigest()
        assert [event.data for event in stream.rest()] == ["first", f"{size} {digest}"]


@on_gevent
def test_unread_input_does_not_cut_the_end(server: Server, tag: str) -> None:
    """The server is done and closes while unread input lies in its buffers, and
    most of the stream in the client's: a reset would throw that away."""
    with Connection(server) as connection:
        connection.request(f"/burst?tag={tag}&count=800&size=1000")
        connection.socket.sendall(b"GET / HTTP/1.1\r\nnonsense: " + b"x" * 200_000)
        server.wait_for_mark(tag, "finished")
        stream = Stream(connection)
        assert stream.next().data == "0 " + "x" * 1000
        until_closed = [event.data for event in stream.rest()]
    assert until_closed == [f"{n} {'x' * 1000}" for n in range(1, 800)]


@on_gevent
def test_a_body_that_comes_late_is_read_before_the_stream_begins(server: Server) -> None:
    with Connection(server) as connection:
        connection.socket.sendall(
            b"POST /unread HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 300000\r\n\r\n"
        )
        for _ in range(30):
            connection.socket.sendall(b"b" * 10_000)
        stream = Stream(connection)
        assert len(stream.rest()) == 20
        assert connection.at_end()


@on_every_server
def test_a_client_that_sends_for_ever(server: Server, tag: str) -> None:
    """It is not read for ever, and still gets its stream, complete and in order."""
    stopped = threading.Event()
    with Connection(server) as connection:
        connection.request(f"/numbers?tag={tag}&count=40&interval=0.02")
        stream = Stream(connection)
        assert stream.next().data == "0"

        def send_for_ever() -> None:
            with contextlib.suppress(OSError):
                while not stopped.is_set():
                    connection.socket.sendall(b"GET / HTTP/1.1\r\nnonsense: " + b"x" * 60_000)

        sending = threading.Thread(target=send_for_ever)
        sending.start()
        try:
            assert [event.data for event in stream.rest()] == [str(n) for n in range(1, 40)]
        finally:
            stopped.set()
            with contextlib.suppress(OSError):
                connection.socket.shutdown(socket.SHUT_RDWR)
            sending.join(20)
    assert not sending.is_alive()
    server.wait_for_mark(tag, "finished")


@on_gevent
def test_a_client_that_sends_for_ever_is_not_read_for_ever(server: Server, tag: str) -> None:
    with open_stream(server, f"/silent?tag={tag}&heartbeat=0.2") as stream:
        assert stream.next().data == "first"
        stream.connection.socket.settimeout(1)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 200_000_000:
                sent += stream.connection.socket.send(b"x" * 65536)
        assert sent < 50_000_000, "it is still being read"


@on_gevent
@pytest.mark.parametrize("how", ["ids", "without-ids"])
def test_a_half_close_counts_as_leaving(server: Server, tag: str, how: str) -> None:
    """And the half that the client still reads ends properly: resumable, or with a failure."""
    with open_stream(server, f"/silent?tag={tag}&heartbeat=9999&{how}") as stream:
        assert stream.next().data == "first"
        stream.connection.socket.shutdown(socket.SHUT_WR)
        server.wait_for_mark(tag, "finally")
        rest = stream.rest()
        assert stream.connection.at_end()
    if how == "ids":
        assert rest == []
    else:
        (failure,) = rest
        assert json.loads(failure.data or "")["error"]["code"] == "client_left"


@on_gevent
@pytest.mark.parametrize("path", ["/hello?q=x", "/burst?count=3", "/late?tag={tag}&first_byte=9"])
def test_a_client_that_closes_its_side_at_once_gets_an_answer(
    server: Server, path: str, tag: str
) -> None:
    with Connection(server) as connection:
        connection.request(path.format(tag=tag))
        connection.socket.shutdown(socket.SHUT_WR)
        head = connection.head()
        body = connection.body(head)
        assert head.status == 200
        assert connection.at_end()
    # A burst may have been sent to its end before the client's is seen.
    assert b"client_left" in body or "late" not in path
