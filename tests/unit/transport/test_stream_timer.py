"""When a slow client of a stream with a greenlet is cut: its socket and clock are made up."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import gevent.socket
import pytest

from sseflask.counters.counts import StreamCounts
from sseflask.transport import event_loop, socket_writer, stream_timer, timing
from sseflask.transport.socket_writer import SocketWriter
from sseflask.transport.stream_greenlet import StreamGreenlet
from sseflask.transport.stream_timer import StreamTimer

HEARTBEAT = 10.0


class Slow:
    """A stream whose client has taken all until 100.0, and its timer."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.unacknowledged = 1000
        self.due = 0.0
        ours, self.client = socket.socketpair()
        self.writer = SocketWriter(
            gevent.socket.socket(fileno=ours.detach()), StreamGreenlet(), StreamCounts()
        )
        clock = SimpleNamespace(monotonic=lambda: self.now)
        for module in (socket_writer, stream_timer, timing):
            patch.setattr(module, "time", clock)
        patch.setattr(socket_writer, "unacknowledged", lambda _: self.unacknowledged)
        patch.setattr(event_loop, "start_timer", self._start_timer)
        patch.setattr(SocketWriter, "abort", lambda _writer: self._abort())
        self.cut = False
        stream = SimpleNamespace(first_byte=1, heartbeat=HEARTBEAT, lifetime=0, expires_at=None)
        sender: Any = SimpleNamespace(
            stream=stream,
            writer=self.writer,
            greenlet=self.writer.greenlet,
            started=True,
            late_start=None,
            diverted=False,
            slow=False,
        )
        self.writer.last_progress = self.now
        self.timer = StreamTimer(sender)
        self.timer.set()

    def _start_timer(self, seconds: float, _callback: object) -> Any:
        self.due = self.now + seconds
        return SimpleNamespace(close=bool)

    def _abort(self) -> None:
        self.cut = True

    def pass_until(self, end: float) -> None:
        """Let time pass, and the timer do what is due."""
        while self.due <= end and not self.cut:
            self.now = max(self.now, self.due)
            self.timer()
        self.now = end


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Slow]:
    made = Slow(monkeypatch)
    yield made
    made.writer.close()
    made.writer.socket.close()
    made.client.close()


def test_a_client_that_takes_nothing_is_cut_after_two_heartbeats_and_three_at_most(
    slow: Slow,
) -> None:
    slow.writer.unsent = memoryview(b"waits")
    slow.pass_until(100.0 + 2 * HEARTBEAT)
    assert not slow.cut
    slow.pass_until(100.0 + 3 * HEARTBEAT)
    assert slow.cut


def test_a_client_that_takes_a_little_in_each_heartbeat_is_not_cut(slow: Slow) -> None:
    slow.writer.unsent = memoryview(b"waits")
    for beat in range(1, 20):
        slow.unacknowledged -= 1
        slow.pass_until(100.0 + beat * HEARTBEAT)
    assert not slow.cut
    slow.pass_until(100.0 + 22 * HEARTBEAT)
    assert slow.cut


def test_what_was_looked_at_before_the_client_took_something_does_not_count(slow: Slow) -> None:
    slow.writer.unsent = memoryview(b"waits")
    slow.pass_until(100.0 + HEARTBEAT)
    slow.writer._send(b"some")  # as much waits as before
    slow.writer.unsent = memoryview(b"waits")
    slow.pass_until(100.0 + 3 * HEARTBEAT)
    assert not slow.cut
    slow.pass_until(100.0 + 4 * HEARTBEAT)
    assert slow.cut
