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
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import gevent

from sseflask.counters.counts import Reason
from sseflask.loop.serial_executor import SerialExecutor
from sseflask.transport import event_loop
from sseflask.transport.detached.delivery import Delivery
from sseflask.transport.detached.group import Backlog, DetachedStream, Group, Piece
from sseflask.transport.detached.stream_table import StreamTable
from sseflask.transport.event_loop import Watcher
from sseflask.transport.failures import half_closed
from sseflask.transport.sockets import timed_out

log = logging.getLogger("sseflask")

_GONE = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
_EVENTS_AT_ONCE = 1024

_of_hubs: WeakKeyDictionary[Any, DetachedStreams] = WeakKeyDictionary()


class DetachedStreams:
    """The detached streams of one event loop; in its `jobs` alone streams are written to."""

    def __init__(self) -> None:
        self.jobs = SerialExecutor()
        self.table = StreamTable()
        self._delivery = Delivery(self.table)
        self._watcher = event_loop.watch(self.table.epoll.fileno(), event_loop.READ)
        self._watcher.start(self._on_events)
        self._timer: Watcher | None = None
        self._timer_due = math.inf

    @classmethod
    def current(cls) -> DetachedStreams:
        hub = gevent.get_hub()
        detached = _of_hubs.get(hub)
        if detached is None:
            detached = _of_hubs[hub] = cls()
        return detached

    @property
    def connections(self) -> int:
        """How many connections there are, with those that have no stream any more."""
        return len(self.table)

    @property
    def streams(self) -> int:
        """How many streams there are, with those that wait for their client's close."""
        return len(self.table) - len(self.table.idle)

    def adopt(self, stream: DetachedStream, ends_at: float, unread: bytes = b"") -> None:
        """Take over an open stream, and its descriptor, until a monotonic time, or infinity.

        ``unread`` is what was read of its connection's next request.
        """
        now = time.monotonic()
        try:
            self.table.adopt(stream, ends_at, now, unread)
        except OSError as error:
            log.warning(
                "a subscriber's socket can't be watched; its client has to resume: %s", error
            )
            self.jobs.submit(self._end, [stream], "resync")
        if self.table.deadlines.next() < self._timer_due:
            self._plan(now)

    def keep_rest(self, stream: DetachedStream, piece: Piece, sent: int) -> None:
        """Write what the socket of a stream that begins has not taken, as soon as it can be."""
        stream.group.mark_slow(stream)
        self._delivery.keep(stream, piece, sent)
        self._plan(time.monotonic())

    def wait_until_empty(self, seconds: float) -> bool:
        """Block until no connection is left, or the time is over. Returns whether none is left."""
        return bool(self.table.empty.wait(seconds))

    # -- only in a job -----------------------------------------------------------------------------

    def send(self, bodies: Sequence[tuple[Group, bytes]]) -> None:
        """Send each group its piece of the body. The receivers are settled before it gives way."""
        try:
            self._delivery.send(bodies)
        except Exception:
            # Some have it and some have not. All of them resume, and get what they lack.
            log.exception("delivering to subscribers failed; their clients have to resume")
            self.end([group for group, _ in bodies], "resync")
        if self.table.slow.next() < self._timer_due:
            self._plan(time.monotonic())

    def end(self, groups: Sequence[Group], reason: Reason) -> None:
        """End the streams of some groups. Unless they are done their clients reconnect."""
        self._end([stream for group in groups for stream in group.all_streams], reason)

    def _end(self, streams: Sequence[DetachedStream], reason: Reason | None = None) -> None:
        self._delivery.end(streams, reason)
        self._plan(time.monotonic())

    def _end_resumable(self) -> None:
        self._end([each for each in self.table.streams.values() if each.group.resumable], "drain")

    def _end_all(self) -> None:
        self._end(list(self.table.streams.values()), "drain")

    def _send_heartbeats(self, groups: Sequence[Group]) -> None:
        self._delivery.send_heartbeats(groups)
        self._plan(time.monotonic())

    # -- at the worker's end -----------------------------------------------------------------------

    def drain(self) -> None:
        """End the streams that can be resumed elsewhere. Never blocks."""
        self.table.idle.drain()
        self.jobs.submit(self._end_resumable)

    def fail_rest(self) -> None:
        """End all other streams with a failure. Never blocks."""
        self.jobs.submit(self._end_all)

    def abort(self) -> None:
        """Reset those that are still open, once jobs are done. Never blocks."""
        self.jobs.submit(self._cut_all)

    def _cut_all(self) -> None:
        for stream in list(self.table.streams.values()):
            self.table.cut(stream, "drain")

    # -- the loop ----------------------------------------------------------------------------------

    def _on_events(self) -> None:
        table = self.table
        for descriptor, events in table.epoll.poll(0, _EVENTS_AT_ONCE):
            stream = table.streams.get(descriptor)
            if descriptor in table.idle:
                table.idle.happened(descriptor, events)
                table.note_empty()
            elif events & _GONE:
                if stream is not None and events & _GONE == select.EPOLLRDHUP:
                    self._answer_half_closed(stream)
                # Without a stream it may be closed already, by what has just been done.
                errors = stream is not None and events & select.EPOLLERR
                stalled = errors and timed_out(descriptor)
                table.client_gone(descriptor, "slow" if stalled else "left")
            elif stream is not None and (backlog := table.slow.backlogs.get(stream)) is not None:
                self._write_backlog(stream, backlog)
        self._plan(time.monotonic())

    def _write_backlog(self, stream: DetachedStream, backlog: Backlog) -> None:
        try:
            if not self.table.slow.write(stream, backlog):
                return
        except OSError as error:
            self.table.release(stream, "slow" if error.errno == errno.ETIMEDOUT else "left")
            return
        stream.group.counts.events += backlog.events
        stream.group.counts.bytes += backlog.bytes
        if backlog.last is not None:
            self.table.finish(stream, backlog.last)
        else:
            stream.group.add(stream)
            self.table.deadlines.add(stream.group, backlog.progress)

    def _answer_half_closed(self, stream: DetachedStream) -> None:
        """A client that may have closed its own side only gets a proper end of what it reads."""
        group = stream.group
        if stream not in self.table.slow.backlogs:
            last = b"" if group.resumable else group.failure_frame(half_closed())
            with contextlib.suppress(OSError):
                os.write(stream.descriptor, group.last_piece(last).data)

    def _on_timer(self) -> None:
        self._timer_due = math.inf
        now = time.monotonic()
        silent, over = self.table.deadlines.silent(now), self.table.deadlines.over(now)
        if silent:
            self.jobs.submit(self._send_heartbeats, silent)
        if over:
            self.jobs.submit(self._end, over)
        for stream in self.table.slow.stalled(now):
            self.table.cut(stream)
        self.table.closing.close_overdue(now)
        self.table.idle.close_overdue(now)
        self._plan(now)

    def _plan(self, now: float) -> None:
        table = self.table
        due = min(each.next() for each in (table.deadlines, table.closing, table.slow, table.idle))
        if due < self._timer_due:
            if self._timer is not None:
                self._timer.close()
            self._timer_due = due
            self._timer = event_loop.start_timer(due - now, self._on_timer, keeps_loop=False)
