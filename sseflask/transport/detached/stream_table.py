"""The detached streams of a worker by their sockets, and how each of them ends."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Any

from gevent.event import Event as Signal

from sseflask.counters.counts import Reason
from sseflask.loop.native import original
from sseflask.transport import accounting
from sseflask.transport.detached.closing import ClosingSockets
from sseflask.transport.detached.deadlines import Deadlines
from sseflask.transport.detached.group import DetachedStream
from sseflask.transport.detached.idle import IdleConnections
from sseflask.transport.detached.slow_streams import WATCH, SlowStreams

log = logging.getLogger("sseflask")


def _ignore(*_: object) -> None:
    pass


class StreamTable:
    """Has each stream from its adoption until it ends. The loop's thread only; never blocks.

    Attributes:
        streams: by descriptor.
        on_end: called with each stream that has ended, and the bytes of its body.
        on_close: called for each socket that is closed.
        empty: set while no socket is left.
    """

    def __init__(self) -> None:
        # gevent hides it, as it blocks; it is never waited for here.
        self.epoll: Any = original("select", "epoll")()
        self.streams: dict[int, DetachedStream] = {}
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

    def adopt(self, stream: DetachedStream, ends_at: float, now: float) -> None:
        """Take in a stream.

        Raises:
            OSError: it is taken in, but can't be watched: the system's limit.
        """
        self.streams[stream.descriptor] = stream
        self.empty.clear()
        stream.group.add(stream)
        self.deadlines.watch(stream.group, now)
        if ends_at != math.inf:
            self.deadlines.end_at(stream, ends_at)
        # Reports at once what has happened before.
        self.epoll.register(stream.descriptor, WATCH)

    def finish(self, stream: DetachedStream, reason: Reason) -> None:
        """Its client has got the last bytes: wait for its next request, or for its close."""
        self._forget(stream, reason)
        if stream.listener is None:
            self.closing.half_close(stream.descriptor)
        else:
            self.idle.add(stream.descriptor, stream.listener, stream.unread)

    def cut(self, stream: DetachedStream, reason: Reason = "slow") -> None:
        """Give up a slow client."""
        self._forget(stream, reason)
        self.closing.reset(stream.descriptor)

    def release(self, stream: DetachedStream, reason: Reason = "left") -> None:
        """The client has gone."""
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
        self.slow.forget(stream)
        self.deadlines.forget(stream)
        group, backlog = stream.group, stream.backlog
        sent, events = stream.sent, stream.events
        if stream.index >= 0 or (group.slow and stream in group.slow):
            group.remove(stream)
            sent += group.sent
            events += group.events
        if backlog is not None:
            left = backlog.events_left
            sent -= backlog.size
            events -= left
            group.counts.events += backlog.events - left
            group.counts.bytes += max(0, backlog.bytes - backlog.size)
        sent, seconds = max(0, sent), time.monotonic() - stream.began
        accounting.ended(group.kind, reason, stream.log_fields, seconds, events, sent)
        try:
            self.on_end(stream, sent)
        except Exception:  # of what an application has added to the access log
            log.exception("the end of a subscription could not be logged")

    def _on_close(self) -> None:
        self.on_close()
        self.note_empty()

    def note_empty(self) -> None:
        """Set `empty` if that is so."""
        if not len(self):
            self.empty.set()
