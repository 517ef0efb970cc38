"""The detached streams of a worker by their sockets, the slow ones, and how each of them ends.

A client that is too far behind, or takes nothing for two heartbeats, is cut. It can resume if its
group is `resumable`. A client whose stream has a greenlet is cut by
`sseflask.transport.stream_timer`.
"""

from __future__ import annotations

import logging
import math
import os
import select
import time
from collections.abc import Callable
from typing import Any

from gevent.event import Event as Signal

from sseflask.counters.counts import Reason
from sseflask.loop.native import original
from sseflask.transport import accounting
from sseflask.transport.detached.ended import ClosingSockets, IdleConnections
from sseflask.transport.detached.group import Backlog, DetachedStream, Piece
from sseflask.transport.sockets import unacknowledged
from sseflask.transport.timing import Deadlines, check_interval, slow_at

log = logging.getLogger("sseflask")

#: Bytes, and pieces, that a client may be behind before it is cut, without the piece that is being
#: written: that may be a picture.
BACKLOG, BACKLOG_PIECES = 4 << 20, 10_000

#: What the socket of a stream without a backlog is watched for: its client's leaving.
WATCH = select.EPOLLRDHUP | select.EPOLLET


class SlowStreams:
    """The streams with a backlog: what they did not take is kept, bounded in size and time.

    The loop's thread only; never blocks.

    Attributes:
        backlogs: what is kept for each.
    """

    def __init__(self, epoll: select.epoll) -> None:
        self._epoll = epoll
        self.backlogs: dict[DetachedStream, Backlog] = {}
        self._look_at = math.inf

    def take_in(self, stream: DetachedStream, backlog: Backlog) -> None:
        """Keep what a socket did not take; OSError if it is kept, but the socket is not watched."""
        look_at = backlog.progress + check_interval(stream.group.heartbeat)
        self._look_at = min(self.next(), look_at)
        self.backlogs[stream] = backlog
        # Arming it again reports at once if the socket has become writable meanwhile.
        self._epoll.modify(stream.descriptor, WATCH | select.EPOLLOUT)

    def add(self, stream: DetachedStream, piece: Piece) -> bool:
        """Add a piece to a slow stream's backlog. Returns whether that is within its limits."""
        backlog = self.backlogs[stream]
        backlog.add(piece)
        return backlog.waiting <= BACKLOG and len(backlog.pieces) <= BACKLOG_PIECES

    def write(self, stream: DetachedStream, backlog: Backlog) -> bool:
        """Write what the socket takes. Returns if that is all; OSError if the client is gone."""
        pieces = backlog.pieces
        while pieces:
            rest = memoryview(pieces[0])[backlog.done :]
            try:
                sent = os.write(stream.descriptor, rest)
            except BlockingIOError:
                return False
            backlog.size -= sent
            backlog.progress, backlog.unacknowledged = time.monotonic(), None
            if sent < len(rest):
                backlog.done += sent
            else:
                backlog.done = 0
                pieces.popleft()
        del self.backlogs[stream]
        if backlog.last is None:
            self._epoll.modify(stream.descriptor, WATCH)
        return True

    def forget(self, stream: DetachedStream) -> Backlog | None:
        """Keep nothing for a stream any more; give what was left, if it was slow."""
        return self.backlogs.pop(stream, None)

    def stalled(self, now: float) -> list[DetachedStream]:
        """Give the streams whose clients have taken nothing for two heartbeats, if it is time."""
        if now < self.next():
            return []
        found = []
        self._look_at = math.inf
        for stream, backlog in self.backlogs.items():
            heartbeat = stream.group.heartbeat
            waiting = unacknowledged(stream.descriptor)
            if waiting != backlog.unacknowledged:
                backlog.unacknowledged, backlog.progress = waiting, now
            if now >= slow_at(backlog.progress, heartbeat):
                found.append(stream)
            else:
                self._look_at = min(self._look_at, now + check_interval(heartbeat))
        return found

    def next(self) -> float:
        """The monotonic time at which to ask for `stalled`; infinite if no stream is slow."""
        return self._look_at if self.backlogs else math.inf


def _ignore(*_: object) -> None:
    pass


class StreamTable:
    """Has each stream from its adoption until it ends. The loop's thread only; never blocks.

    Attributes:
        on_end: called with each stream that has ended, and the bytes of its body.
        on_close: called for each socket that is closed.
        empty: set while no socket is left.
    """

    def __init__(self) -> None:
        # gevent hides it, as it blocks; it is never waited for here.
        self.epoll: Any = original("select", "epoll")()
        self.streams: dict[int, DetachedStream] = {}
        self._unread: dict[int, bytes] = {}  # of the few clients that have sent more
        self.closing = ClosingSockets(self._on_close)
        self.idle = IdleConnections(self.epoll, self.closing)
        self.slow = SlowStreams(self.epoll)
        self.deadlines = Deadlines()
        self.on_end: Callable[[DetachedStream, int], object] = _ignore
        self.on_close: Callable[[], object] = _ignore
        self.empty = Signal()
        self.empty.set()

    def __len__(self) -> int:
        return len(self.streams) + len(self.closing) + len(self.idle)

    def adopt(
        self, stream: DetachedStream, ends_at: float, now: float, unread: bytes = b""
    ) -> None:
        """Take in a stream; OSError if it is taken in, but can't be watched: the system's limit."""
        self.streams[stream.descriptor] = stream
        if unread:
            self._unread[stream.descriptor] = unread
        self.empty.clear()
        stream.group.add(stream)
        self.deadlines.add(stream.group, now)
        if ends_at != math.inf:
            self.deadlines.end_at(stream, ends_at)
        # Reports at once what has happened before.
        self.epoll.register(stream.descriptor, WATCH)

    def finish(self, stream: DetachedStream, reason: Reason) -> None:
        """Its client has got the last bytes: wait for its next request, or for its close."""
        unread = self._unread.get(stream.descriptor, b"")
        self._forget(stream, reason)
        if stream.listener is None:
            self.closing.half_close(stream.descriptor)
        else:
            self.idle.add(stream.descriptor, stream.listener, unread)
            self.note_empty()  # its next request may be there already

    def cut(self, stream: DetachedStream, reason: Reason = "slow") -> None:
        self._forget(stream, reason)
        self.closing.reset(stream.descriptor)

    def release(self, stream: DetachedStream, reason: Reason = "left") -> None:
        self._forget(stream, reason)
        self.closing.close(stream.descriptor)

    def client_gone(self, descriptor: int, reason: Reason = "left") -> None:
        """The client of a descriptor has gone, whether or not its stream has ended before."""
        stream = self.streams.get(descriptor)
        if stream is not None:
            self.release(stream, reason)
        else:
            self.closing.client_closed(descriptor)

    def _forget(self, stream: DetachedStream, reason: Reason) -> None:
        self.streams.pop(stream.descriptor, None)
        self._unread.pop(stream.descriptor, None)
        backlog = self.slow.forget(stream)
        self.deadlines.forget(stream)
        group = stream.group
        sent, events = stream.sent_offset, stream.events_offset
        if stream in group:
            group.remove(stream)
            sent += group.sent
            events += group.events
        if backlog is not None:
            left = backlog.events_left
            sent -= backlog.size
            events -= left
            group.counts.events += backlog.events - left
            group.counts.bytes += max(0, backlog.bytes - backlog.size)
        # Of a stream that has just begun the backlog has its head too.
        sent, events = max(0, sent), max(0, events)
        seconds = time.monotonic() - stream.began
        accounting.ended(group.kind, reason, stream.log_fields, seconds, events, sent)
        try:
            self.on_end(stream, sent)
        except Exception:  # of what an application has added to the access log
            log.exception("the end of a subscription could not be logged")

    def _on_close(self) -> None:
        self.on_close()
        self.note_empty()

    def note_empty(self) -> None:
        if not len(self):
            self.empty.set()
