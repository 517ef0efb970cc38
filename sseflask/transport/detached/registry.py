"""Streams that only wait: a socket and a small record each, no greenlet, no timer.

All their sockets are in one epoll object, edge-triggered, which the event loop watches like any
other descriptor: a client's leaving is noticed at once and costs nothing until then. Everything is
written by one greenlet, job by job; only what a socket did not take is written when it can be.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
import select
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import gevent
import gevent.monkey
from gevent.event import Event as Signal

from sseflask.counters.counts import Reason
from sseflask.loop.serial_executor import SerialExecutor
from sseflask.loop.time_slice import yield_to_loop
from sseflask.transport import accounting as account
from sseflask.transport.detached.backlog import WATCH, Backlogs
from sseflask.transport.detached.closing import Closing
from sseflask.transport.detached.deadlines import Agenda
from sseflask.transport.detached.fan_out import SLICE, FanOut
from sseflask.transport.detached.group import Backlog, DetachedStream, Group
from sseflask.transport.detached.idle import Idle
from sseflask.transport.failures import half_closed, token_expired
from sseflask.transport.sockets import send_last, timed_out
from sseflask.transport.stream import reconnect_line
from sseflask.wire import HEARTBEAT, events_in

__all__ = ["DetachedStreams"]

log = logging.getLogger("sseflask")

#: Seconds after which nobody asks whether a stream has ended.
_FOR_EVER = 1e9

_READ = 1  # libev's EV_READ
_GONE = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
_EVENTS_AT_ONCE = 1024

Last = Callable[[DetachedStream], tuple[bytes, Reason]]
"""Gives the last bytes of a stream's body, which may be none, and why it ends."""


class _Piece(NamedTuple):
    """A piece of the body as it is sent: framed, its own bytes, its events."""

    data: bytes
    size: int
    events: int


_of_hubs: WeakKeyDictionary[Any, DetachedStreams] = WeakKeyDictionary()


class DetachedStreams:
    """The detached streams of one event loop. Belongs to its thread.

    Attributes:
        jobs: the one greenlet that may write to streams.
        on_end: called with each stream whose stream has ended, and the bytes of its body.
        on_close: called for each socket that is closed.
        idle: connections whose stream has ended.
    """

    def __init__(self) -> None:
        self.jobs = SerialExecutor()
        self.on_end: Callable[[DetachedStream, int], object] = _nobody_asks
        self.on_close: Callable[[], object] = _nobody_asks
        self._members: dict[int, DetachedStream] = {}
        self._closing = Closing(self._on_closed)
        self._fan_out = FanOut(self._fall_behind, self._unwritable)
        self._written = _Piece(b"", 0, 0)
        self._missed = 0
        self._agenda = Agenda()
        self._empty = Signal()
        self._empty.set()
        self._loop = gevent.get_hub().loop
        # gevent hides it, as it blocks; it is never waited for here.
        self._epoll = gevent.monkey.get_original("select", "epoll")()
        self._backlogs = Backlogs(self._epoll)
        self.idle = Idle(self._epoll, self._closing)
        self._watcher = self._loop.io(self._epoll.fileno(), _READ)
        self._watcher.start(self._on_events)
        self._timer: Any = None
        self._timer_due = math.inf

    @classmethod
    def current(cls) -> DetachedStreams:
        """Those of the calling thread's event loop."""
        hub = gevent.get_hub()
        detached = _of_hubs.get(hub)
        if detached is None:
            detached = _of_hubs[hub] = cls()
        return detached

    def __len__(self) -> int:
        """How many connections there are, with those that have no stream any more."""
        return self.count() + len(self.idle)

    def count(self) -> int:
        """How many streams there are, with those that wait for their client's close."""
        return len(self._members) + len(self._closing)

    # -- coming ----------------------------------------------------------------------------------

    def adopt(self, stream: DetachedStream, ends_at: float) -> None:
        """Take over an open stream to which nothing is left to send.

        Args:
            stream: its descriptor is closed here, in the end.
            ends_at: the monotonic time at which it has to end; infinite for never.
        """
        now = time.monotonic()
        group = stream.group
        self._members[stream.descriptor] = stream
        self._empty.clear()
        group.add(stream)
        self._agenda.watch(group, now)
        if ends_at < now + _FOR_EVER:
            self._agenda.end_at(stream, ends_at)
        self._plan(now)
        try:
            # Reports at once what has happened before.
            self._epoll.register(stream.descriptor, WATCH)
        except OSError as error:  # the system's limit on what may be watched
            log.warning("a subscriber can't be watched and is sent away: %s", error)
            self.jobs.submit(lambda: self._end([stream], _resync))

    # -- sending: the greenlet of the jobs ---------------------------------------------------------

    def send(self, batch: Sequence[tuple[Group, bytes]]) -> None:
        """Send each group its piece of the body, and let the loop run every few hundred sockets.

        Only in a job. Who gets it is settled before this gives way for the first time.
        """
        now = time.monotonic()
        try:
            with self._closing.descriptors_kept():
                announced = []
                framed: dict[tuple[bool, int], _Piece] = {}
                for group, body in batch:
                    key = (group.chunked, id(body))  # one body is for many groups
                    piece = framed.get(key)
                    if piece is None:
                        piece = _Piece(group.framed(body), len(body), events_in(body))
                        framed[key] = piece
                    data, size, events = piece
                    group.sent += size
                    group.events += events
                    group.last_sent = now
                    for stream in list(group.lagging or ()):
                        if not self._backlogs.add(stream, data, events, size):
                            self._cut(stream, "slow")
                    announced.append((group, piece, group.descriptors[:]))
                for group, piece, descriptors in announced:
                    self._write(group, piece, descriptors)
        except Exception:
            # Some have it and some have not: all of them find out what they lack.
            log.exception("delivering to subscribers failed; they are sent away to resume")
            self.reconnect([group for group, _ in batch])

    def _write(self, group: Group, piece: _Piece, descriptors: Sequence[int]) -> None:
        """Write a piece to each socket, and count those that took it at once."""
        self._written, self._missed = piece, 0
        self._fan_out.write(piece.data, descriptors)
        taken = len(descriptors) - self._missed
        group.counts.events += piece.events * taken
        group.counts.bytes += piece.size * taken

    def _unwritable(self, descriptor: int) -> None:
        self._missed += 1
        self._gone(descriptor)

    def _fall_behind(self, descriptor: int, data: bytes, sent: int) -> None:
        self._missed += 1
        stream = self._members.get(descriptor)
        if stream is None or stream.index < 0:
            return  # it has ended or left since this was announced
        now = time.monotonic()
        stream.group.fall_behind(stream)
        _, size, events = self._written
        self._keep_for(stream, Backlog(data, sent, now, events, size))

    def _keep_for(self, stream: DetachedStream, backlog: Backlog) -> None:
        try:
            self._backlogs.keep(stream, backlog)
        except OSError:  # it could not be watched in the first place
            self._cut(stream, "slow")
        self._plan(backlog.progress)

    def _beat(self, groups: Sequence[Group]) -> None:
        with self._closing.descriptors_kept():
            for group in groups:
                group.sent += len(HEARTBEAT)
                piece = _Piece(group.framed(HEARTBEAT), len(HEARTBEAT), 0)
                self._write(group, piece, group.descriptors[:])

    def _end(self, streams: Sequence[DetachedStream], last: Last) -> None:
        """Send each its last bytes; the sockets are closed when the clients have closed theirs."""
        with self._closing.descriptors_kept():
            for count, stream in enumerate(streams, 1):
                ended = stream.backlog is not None and stream.backlog.last is not None
                if self._members.get(stream.descriptor) is stream and not ended:
                    self._finish(stream, *last(stream))
                if not count % SLICE:
                    yield_to_loop()

    def _finish(self, stream: DetachedStream, last: bytes, reason: Reason) -> None:
        group, backlog = stream.group, stream.backlog
        data, events = group.ending(last), events_in(last)
        stream.sent += group.sent + len(last)
        stream.events += group.events + events
        group.remove(stream)
        self._agenda.forget(stream)
        if backlog is None:
            try:
                kept = stream.listener is not None
                sent = (os.write if kept else send_last)(stream.descriptor, data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._release(stream)
                return
            if sent == len(data):
                group.counts.events += events
                group.counts.bytes += len(last)
                self._conclude(stream, reason)
                return
            backlog = Backlog(data, sent, time.monotonic(), events, len(last))
            backlog.last = reason
            self._keep_for(stream, backlog)
        else:
            backlog.add(data, events, len(last))
            backlog.last = reason

    # -- the loop ----------------------------------------------------------------------------------

    def _on_events(self) -> None:
        for descriptor, events in self._epoll.poll(0, _EVENTS_AT_ONCE):
            if descriptor in self.idle:
                self.idle.happened(descriptor, events)
                self._note_empty()
            elif events & _GONE:
                if events & _GONE == select.EPOLLRDHUP:
                    self._say_goodbye(descriptor)
                stalled = events & select.EPOLLERR and timed_out(descriptor)
                self._gone(descriptor, "slow" if stalled else "left")
            elif events & select.EPOLLOUT:
                stream = self._members.get(descriptor)
                if stream is not None and stream.backlog is not None:
                    self._catch_up(stream, stream.backlog)

    def _catch_up(self, stream: DetachedStream, backlog: Backlog) -> None:
        try:
            written = self._backlogs.write(stream, backlog)
        except OSError as error:
            self._release(stream, "slow" if error.errno == errno.ETIMEDOUT else "left")
            return
        if written:
            stream.group.counts.events += backlog.events
            stream.group.counts.bytes += backlog.bytes
        if written and backlog.last is not None:
            self._conclude(stream, backlog.last)
        elif written:
            stream.group.add(stream)
            self._agenda.watch(stream.group, backlog.progress)

    def _gone(self, descriptor: int, reason: Reason = "left") -> None:
        stream = self._members.get(descriptor)
        if stream is not None:
            self._release(stream, reason)
        else:
            self._closing.client_closed(descriptor)

    def _say_goodbye(self, descriptor: int) -> None:
        """A client that may have closed its own side only gets a proper end of what it reads."""
        stream = self._members.get(descriptor)
        if stream is None or stream.backlog is not None:
            return
        group = stream.group
        last = b"" if group.resumable else group.failure_frame(half_closed())
        with contextlib.suppress(OSError):
            os.write(descriptor, group.ending(last))

    def _on_timer(self) -> None:
        self._timer_due = math.inf
        now = time.monotonic()
        silent = self._agenda.silent(now)
        if silent:
            self.jobs.submit(lambda: self._beat(silent))
        over = self._agenda.over(now)
        if over:
            self.jobs.submit(lambda: self._end(over, _last_words))
        for stream in self._backlogs.stalled(now):
            self._cut(stream, "slow")
        self._closing.close_overdue(now)
        self.idle.close_overdue(now)
        self._plan(now)

    def _plan(self, now: float) -> None:
        """See that the timer fires when the next thing is due."""
        due = min(
            self._agenda.next(), self._closing.next(), self._backlogs.next(), self.idle.next()
        )
        if due < self._timer_due:
            if self._timer is not None:
                self._timer.close()
            self._timer_due = due
            self._timer = self._loop.timer(max(0.001, due - now), ref=False)
            self._timer.start(self._on_timer)

    # -- going -------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Send away who can resume elsewhere. Never blocks."""
        self.idle.leave()

        def job() -> None:
            streams = list(self._members.values())
            self._end([each for each in streams if each.group.resumable], _drained)

        self.jobs.submit(job)

    def reconnect(self, groups: Sequence[Group]) -> None:
        """Send the streams of some groups away, to resume. Only in a job."""
        self._end(_all_of(groups), _resync)

    def close(self, groups: Sequence[Group]) -> None:
        """The same for what the application has closed. Only in a job."""
        self._end(_all_of(groups), _closed)

    def finish(self, groups: Sequence[Group]) -> None:
        """End the streams of all streams: they have got the last bytes. Only in a job."""
        self._end(_all_of(groups), _done)

    def abort(self) -> None:
        """Cut those that are left. Never blocks."""
        for stream in list(self._members.values()):
            self._cut(stream, "drain")

    def wait_until_empty(self, seconds: float) -> bool:
        """Block until no stream is left, and say whether that is so."""
        return bool(self._empty.wait(seconds))

    def _conclude(self, stream: DetachedStream, reason: Reason) -> None:
        self._forget(stream, reason)
        if stream.listener is None:
            self._closing.half_close(stream.descriptor)
        else:
            self.idle.keep(stream.descriptor, stream.listener, stream.unread)
        self._plan(time.monotonic())

    def _cut(self, stream: DetachedStream, reason: Reason) -> None:
        self._forget(stream, reason)
        self._closing.reset(stream.descriptor)

    def _release(self, stream: DetachedStream, reason: Reason = "left") -> None:
        self._forget(stream, reason)
        self._closing.close(stream.descriptor)

    def _forget(self, stream: DetachedStream, reason: Reason) -> None:
        self._members.pop(stream.descriptor, None)
        self._backlogs.forget(stream)
        group, backlog = stream.group, stream.backlog
        sent, events = stream.sent, stream.events
        if stream.index >= 0 or (group.lagging and stream in group.lagging):
            group.remove(stream)
            sent += group.sent
            events += group.events
        if backlog is not None:
            left = backlog.events_left
            sent -= backlog.size
            events -= left
            group.counts.events += backlog.events - left
            group.counts.bytes += max(0, backlog.bytes - backlog.size)
        self._agenda.forget(stream)
        sent, seconds = max(0, sent), time.monotonic() - stream.began
        account.ended(group.kind, reason, stream.log_fields, seconds, events, sent)
        try:
            self.on_end(stream, sent)
        except Exception:  # of what somebody has hung into the access log
            log.exception("the end of a subscription could not be logged")

    def _on_closed(self) -> None:
        self.on_close()
        self._note_empty()

    def _note_empty(self) -> None:
        if not len(self):
            self._empty.set()


def _nobody_asks(*_: object) -> None:
    pass


def _drained(stream: DetachedStream) -> tuple[bytes, Reason]:
    return _come_back(stream), "drain"


def _resync(stream: DetachedStream) -> tuple[bytes, Reason]:
    return _come_back(stream), "resync"


def _closed(stream: DetachedStream) -> tuple[bytes, Reason]:
    return _come_back(stream), "closed"


def _come_back(stream: DetachedStream) -> bytes:
    stream.group.last_reconnect = time.monotonic()
    return reconnect_line(stream.retry_jitter)


def _done(stream: DetachedStream) -> tuple[bytes, Reason]:  # noqa: ARG001  # what is called for each stream
    return b"", "done"


def _last_words(stream: DetachedStream) -> tuple[bytes, Reason]:
    if stream.expires:
        return stream.group.failure_frame(token_expired()), "expired"
    # Its lifetime is over, at a moment of its own.
    stream.group.last_reconnect = time.monotonic()
    return b"", "lifetime"


def _all_of(groups: Sequence[Group]) -> list[DetachedStream]:
    return [each for group in groups for each in (*group.streams, *(group.lagging or ()))]
