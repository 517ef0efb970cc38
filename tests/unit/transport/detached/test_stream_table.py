"""When a slow client of a stream without a greenlet is cut, by a clock that is made up."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from sseflask.transport.detached import stream_table
from sseflask.transport.detached.group import Backlog, DetachedStream, Group, Piece
from sseflask.transport.detached.stream_table import SlowStreams

HEARTBEAT = 10.0
BODY = b"x" * 4_000_000


class Slow:
    """A stream whose client has taken something last at 100.0."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.unacknowledged = 1000
        self.now = 100.0
        patch.setattr(stream_table, "unacknowledged", lambda _: self.unacknowledged)
        patch.setattr(stream_table, "time", SimpleNamespace(monotonic=lambda: self.now))
        self.sockets: list[socket.socket] = []
        self._epoll = select.epoll()
        self.streams = SlowStreams(self._epoll)
        self.stream, self.backlog = self.take_in(HEARTBEAT)
        self.cut = False

    def take_in(self, heartbeat: float) -> tuple[DetachedStream, Backlog]:
        """A stream becomes slow now."""
        server, client = socket.socketpair()
        self.sockets += [server, client]
        server.setblocking(False)
        self._epoll.register(server, 0)
        group = Group(False, heartbeat, lambda _: None)
        stream, backlog = DetachedStream(server.fileno(), group, 0.0, 0), Backlog(0, self.now)
        backlog.add(Piece(BODY, len(BODY), 1))
        self.streams.take_in(stream, backlog)
        return stream, backlog

    def pass_until(self, end: float) -> None:
        """Let time pass, and ask when it is due, as `DetachedStreams` does."""
        while self.streams.next() <= end and not self.cut:
            self.now = max(self.now, self.streams.next())
            self.cut = self.streams.stalled(self.now) == [self.stream]
        self.now = end


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Slow]:
    made = Slow(monkeypatch)
    yield made
    for each in made.sockets:
        each.close()


def test_a_client_that_takes_nothing_is_cut_after_two_heartbeats_and_three_at_most(
    slow: Slow,
) -> None:
    slow.pass_until(100.0 + 2 * HEARTBEAT)
    assert not slow.cut
    slow.pass_until(100.0 + 3 * HEARTBEAT)
    assert slow.cut


def test_a_client_that_takes_a_little_in_each_heartbeat_is_not_cut(slow: Slow) -> None:
    for beat in range(1, 20):
        slow.unacknowledged -= 1
        slow.pass_until(100.0 + beat * HEARTBEAT)
    assert not slow.cut
    slow.pass_until(100.0 + 22 * HEARTBEAT)
    assert slow.cut


def test_what_was_looked_at_before_the_client_took_something_does_not_count(slow: Slow) -> None:
    slow.pass_until(100.0 + HEARTBEAT)
    assert not slow.streams.write(slow.stream, slow.backlog)
    slow.pass_until(100.0 + 3 * HEARTBEAT)
    assert not slow.cut, "as much waits as before, but it has taken something since"
    slow.pass_until(100.0 + 4 * HEARTBEAT)
    assert slow.cut


def test_another_slow_client_with_long_heartbeats_postpones_nothing(
    slow: Slow,
) -> None:
    slow.streams.forget(slow.stream)
    slow.pass_until(101.0)
    slow.take_in(100 * HEARTBEAT)
    slow.stream, _ = slow.take_in(HEARTBEAT)
    slow.pass_until(101.0 + 2 * HEARTBEAT)
    assert not slow.cut
    slow.pass_until(101.0 + 3 * HEARTBEAT)
    assert slow.cut
