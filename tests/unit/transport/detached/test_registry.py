"""Detached streams on real sockets, driven by a real event loop in this thread."""

from __future__ import annotations

import contextlib
import math
import os
import socket
import time
from collections.abc import Callable, Iterator

import gevent
import pytest

from sseflask.transport.detached import delivery, stream_table
from sseflask.transport.detached.group import DetachedStream, Group
from sseflask.transport.detached.registry import DetachedStreams

SECONDS = 10.0


class Ends:
    """What the worker is called with."""

    def __init__(self) -> None:
        self.ended: list[tuple[DetachedStream, int]] = []
        self.closed = 0

    def on_end(self, member: DetachedStream, sent: int) -> None:
        self.ended.append((member, sent))

    def on_close(self) -> None:
        self.closed += 1


class Crowd:
    """A `DetachedStreams` of its own, a group, and its clients' ends of the connections."""

    def __init__(self, heartbeat: float = 1000.0, chunked: bool = False) -> None:
        self.detached = DetachedStreams()
        self.ends = Ends()
        self.detached.table.on_end = self.ends.on_end
        self.detached.table.on_close = self.ends.on_close
        self.dissolved: list[Group] = []
        self.group = Group(chunked, heartbeat, self.dissolved.append)
        self.clients: list[socket.socket] = []

    def client(
        self,
        *,
        buffer: int = 0,
        small_send_buffer: bool = True,
        ends_at: float = math.inf,
        expires: bool = False,
        came_by: object = None,
        unread: bytes = b"",
    ) -> DetachedStream:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(1)
            client = socket.socket()
            if buffer:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            client.connect(listener.getsockname())
            server, _ = listener.accept()
        if buffer and small_send_buffer:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        server.setblocking(False)
        client.setblocking(False)
        self.clients.append(client)
        member = DetachedStream(server.detach(), self.group, time.monotonic(), 0)
        member.expires, member.listener = expires, came_by
        self.detached.adopt(member, ends_at, unread)
        return member

    def send(self, body: bytes) -> None:
        self.job(lambda: self.detached.send([(self.group, body)]))

    def job(self, what: Callable[[], object]) -> None:
        """Do a job to its end."""
        done = gevent.event.Event()
        self.detached.jobs.submit(what)
        self.detached.jobs.submit(done.set)
        assert done.wait(SECONDS)

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self.detached.abort()
        assert self.detached.wait_until_empty(SECONDS)


@pytest.fixture
def crowd() -> Iterator[Crowd]:
    made = Crowd()
    yield made
    made.close()


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"still not: {what}"
        gevent.sleep(0.005)


def received(client: socket.socket) -> bytes:
    data = b""
    while True:
        try:
            piece = client.recv(1 << 20)
        except BlockingIOError:
            return data
        if not piece:
            return data
        data += piece


def at_end(client: socket.socket) -> bytes:
    """All that comes until the server closes its side."""
    data = b""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        try:
            piece = client.recv(1 << 20)
        except BlockingIOError:
            gevent.sleep(0.005)
            continue
        if not piece:
            return data
        data += piece
    raise AssertionError(f"no end, only {data!r}")


def test_everybody_gets_the_same(crowd: Crowd) -> None:
    for _ in range(2 * delivery.SOCKETS_AT_ONCE + 3):
        crowd.client()
    crowd.send(b"one ")
    crowd.send(b"two")
    assert {received(client) for client in crowd.clients} == {b"one two"}


def test_chunks() -> None:
    crowd = Crowd(chunked=True)
    crowd.client()
    crowd.send(b"0123456789ab")
    assert received(crowd.clients[0]) == b"c\r\n0123456789ab\r\n"
    crowd.close()


def test_who_leaves_is_noticed_at_once_and_its_descriptor_closed(crowd: Crowd) -> None:
    members = [crowd.client() for _ in range(3)]
    crowd.send(b"12345")
    crowd.clients[1].close()
    until(lambda: crowd.ends.closed == 1, "the second one's leaving noticed")
    assert crowd.ends.ended == [(members[1], 5)]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(members[1].descriptor)
    crowd.send(b"6")
    assert received(crowd.clients[0]) == received(crowd.clients[2]) == b"123456"
    for place in (0, 2):
        crowd.clients[place].close()
    until(lambda: crowd.detached.connections == 0, "all gone")
    assert crowd.dissolved == [crowd.group]


def test_a_subscriber_is_a_small_record() -> None:
    """Ten fields take 112 bytes, an eleventh 128: a worker may have tens of thousands."""
    assert len(DetachedStream.__slots__) <= 10


def test_one_that_had_left_before_it_came(crowd: Crowd) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    client.close()
    crowd.detached.adopt(DetachedStream(server.detach(), crowd.group, 0.0, 0), math.inf)
    until(lambda: crowd.ends.closed == 1, "noticed")


def test_a_slow_one_gets_everything_in_order_and_holds_nobody_up(crowd: Crowd) -> None:
    crowd.client(buffer=4096)
    crowd.client()
    pieces = [b"%05d," % number * 1000 for number in range(20)]
    for piece in pieces:
        crowd.send(piece)
    assert crowd.group.slow
    until(lambda: received_all(crowd.clients[1]) >= 120_000, "the fast one has it all")
    slow = b""
    while len(slow) < 120_000:
        slow += received(crowd.clients[0])
        gevent.sleep(0)
    assert slow == b"".join(pieces)
    until(lambda: not crowd.group.slow, "it has caught up")
    crowd.send(b"more")
    until(lambda: received(crowd.clients[0]) == b"more", "and goes on with the others")


_amounts: dict[int, int] = {}


def received_all(client: socket.socket) -> int:
    _amounts[client.fileno()] = _amounts.get(client.fileno(), 0) + len(received(client))
    return _amounts[client.fileno()]


def test_one_that_is_too_far_behind_is_cut_with_a_reset(
    crowd: Crowd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_table, "BACKLOG", 100_000)
    crowd.client(buffer=4096)
    for _ in range(50):
        crowd.send(b"x" * 10_000)
    until(lambda: crowd.ends.closed == 1, "cut")
    ((_, sent),) = crowd.ends.ended
    assert sent < 500_000
    with pytest.raises(ConnectionResetError):
        at_end(crowd.clients[0])


def test_one_that_takes_nothing_for_two_heartbeats_is_cut() -> None:
    crowd = Crowd(heartbeat=0.05)
    crowd.client(buffer=4096)
    crowd.client()
    for _ in range(10):
        crowd.send(b"x" * 100_000)
    until(lambda: crowd.ends.closed == 1, "the one that does not read is cut")
    until(lambda: received(crowd.clients[1]).endswith(b": ping\n"), "the other goes on")
    crowd.close()


def test_a_slow_reader_is_not_taken_for_one_that_does_not_read() -> None:
    """The kernel tells of room only when a third of its large buffer is free: seconds later."""
    crowd = Crowd(heartbeat=0.4)
    crowd.client(buffer=4096, small_send_buffer=False)
    while not crowd.group.slow:
        crowd.send(b"x" * 500_000)
    end = time.monotonic() + 2.0
    while time.monotonic() < end:
        with contextlib.suppress(BlockingIOError):
            crowd.clients[0].recv(1000)
        gevent.sleep(0.01)
    assert crowd.group.slow, "it has not caught up either"
    assert crowd.ends.closed == 0
    until(lambda: crowd.ends.closed == 1, "cut, as it has stopped reading")
    crowd.close()


def test_heartbeats_in_silence_only() -> None:
    crowd = Crowd(heartbeat=1.0)
    crowd.client()
    got = b""
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        crowd.send(b"x\n\n")
        got += received(crowd.clients[0])
        gevent.sleep(0.01)
    assert b"ping" not in got
    until(lambda: b": ping\n: ping\n" in received_text(crowd.clients[0]), "two heartbeats")
    crowd.close()


_texts: dict[int, bytes] = {}


def received_text(client: socket.socket) -> bytes:
    _texts[client.fileno()] = _texts.get(client.fileno(), b"") + received(client)
    return _texts[client.fileno()]


@pytest.mark.parametrize("expires", [True, False])
def test_each_ends_when_its_time_is_over(expires: bool) -> None:
    crowd = Crowd(chunked=True)
    crowd.client(ends_at=time.monotonic() + 0.1, expires=expires)
    crowd.client()
    last = at_end(crowd.clients[0])
    assert last.endswith(b"0\r\n\r\n")
    assert (b"token_expired" in last) == expires
    assert b"retry: " not in last, "no other client comes back at this moment"
    crowd.clients[0].close()
    until(lambda: crowd.ends.closed == 1, "closed")
    assert crowd.detached.connections == 1
    crowd.close()


def test_drain_ends_all_streams_properly() -> None:
    crowd = Crowd(chunked=True)
    for _ in range(delivery.SOCKETS_AT_ONCE + 10):
        crowd.client()
    crowd.detached.drain()
    for client in crowd.clients:
        last = at_end(client)
        assert last.startswith(b"b\r\nretry: 500\n"), "the member's own jitter, which is 0"
        assert last.endswith(b"\r\n0\r\n\r\n")
        client.close()
    assert crowd.detached.wait_until_empty(SECONDS)
    assert len(crowd.ends.ended) == delivery.SOCKETS_AT_ONCE + 10
    assert crowd.dissolved == [crowd.group]


def test_drain_lets_a_slow_one_have_what_it_is_owed() -> None:
    crowd = Crowd(chunked=True)
    crowd.client(buffer=4096)
    crowd.send(b"x" * 300_000)
    crowd.detached.drain()
    crowd.job(lambda: None)
    data = at_end(crowd.clients[0])
    assert data.count(b"x") == 300_000
    assert data.endswith(b"\r\n0\r\n\r\n")
    crowd.close()


def test_an_ended_stream_does_not_wait_for_ever_for_its_client() -> None:
    crowd = Crowd()
    crowd.client()
    crowd.detached.drain()
    assert crowd.detached.wait_until_empty(SECONDS)
    crowd.close()


def test_a_number_used_again_never_gets_what_was_meant_for_another(
    crowd: Crowd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One leaves while others are written to, and somebody else's socket may have its number."""
    monkeypatch.setattr(delivery, "SOCKETS_AT_ONCE", 1)
    members = [crowd.client() for _ in range(3)]
    number = members[2].descriptor
    spy, other = socket.socketpair()
    spy.setblocking(False)
    taken: list[int] = []

    def somebody_leaves() -> None:
        if not taken:
            crowd.clients[2].close()
            until(lambda: len(crowd.ends.ended) == 1, "its leaving noticed")
            while not taken or taken[-1] < number:
                taken.append(os.dup(other.fileno()))

    monkeypatch.setattr(delivery, "yield_to_loop", somebody_leaves)
    crowd.send(b"for those that are there")
    for descriptor in taken:
        os.close(descriptor)
    other.close()
    assert received(crowd.clients[0]) == received(crowd.clients[1]) == b"for those that are there"
    with spy:
        assert received(spy) == b""
    assert number not in taken
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


def test_a_job_that_fails_does_not_stop_the_others(
    crowd: Crowd, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise KeyError("a job")

    crowd.client()
    crowd.detached.jobs.submit(fail)
    crowd.send(b"x")
    assert received(crowd.clients[0]) == b"x"
    assert "KeyError" in caplog.text


def test_one_whose_end_can_not_be_logged_harms_nobody(
    crowd: Crowd, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_member: DetachedStream, _sent: int) -> None:
        raise KeyError("of an access log of somebody's own")

    crowd.detached.table.on_end = fail
    for _ in range(3):
        crowd.client()
    crowd.clients[0].close()
    crowd.send(b"x")
    assert received(crowd.clients[1]) == received(crowd.clients[2]) == b"x"
    until(lambda: crowd.ends.closed == 1, "its socket is closed all the same")
    assert "KeyError" in caplog.text


def test_a_delivery_that_fails_ends_its_streams(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    crowd = Crowd(chunked=True)
    crowd.client()
    original = os.write

    def fail_once(descriptor: int, data: bytes) -> int:
        if b"event" in data:
            raise MemoryError("in the middle of it")
        return original(descriptor, data)

    monkeypatch.setattr(os, "write", fail_once)
    crowd.send(b"event")
    last = at_end(crowd.clients[0])
    assert b"event" not in last
    assert last.endswith(b"0\r\n\r\n")
    assert "MemoryError" in caplog.text
    crowd.close()


def test_nobody_ends_twice() -> None:
    crowd = Crowd(chunked=True)
    crowd.client(buffer=4096)
    crowd.send(b"x" * 300_000)
    assert crowd.group.slow
    crowd.job(lambda: crowd.detached.end([crowd.group], "resync"))
    crowd.detached.drain()
    crowd.job(lambda: None)
    data = at_end(crowd.clients[0])
    assert data.count(b"retry: ") == 1
    assert data.count(b"\r\n0\r\n\r\n") == 1
    crowd.close()
    assert len(crowd.ends.ended) == 1


def test_small_pieces_are_limited_as_well(crowd: Crowd, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes room whatever its size."""
    monkeypatch.setattr(stream_table, "BACKLOG_PIECES", 20)
    crowd.client(buffer=4096)
    crowd.send(b"x" * 300_000)
    for _ in range(25):
        crowd.send(b"y")
    until(lambda: crowd.ends.closed == 1, "cut")
