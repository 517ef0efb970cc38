"""Detached streams with slow clients: what they did not take is kept, bounded in size and time.

A client that is too far behind, or takes nothing for two heartbeats, is cut; it can resume. One
whose stream has a greenlet is cut by `sseflask.transport.stream_timer`.
"""

from __future__ import annotations

import math
import os
import select
import time

from sseflask.transport.detached.group import Backlog, DetachedStream, Piece
from sseflask.transport.sockets import unacknowledged
from sseflask.transport.timing import slow_at

#: Bytes, and pieces, that a client may be behind before it is cut; it can resume. Not counting the
#: one piece that is being written: it may be a picture.
BACKLOG, BACKLOG_PIECES = 4 << 20, 10_000

#: What the socket of a stream without a backlog is watched for: its client's leaving.
WATCH = select.EPOLLRDHUP | select.EPOLLET


class SlowStreams:
    """The streams that have a backlog. The loop's thread only; never blocks.

    Args:
        epoll: has the streams' sockets.
    """

    def __init__(self, epoll: select.epoll) -> None:
        self._epoll = epoll
        self._streams: set[DetachedStream] = set()
        self._look_at = math.inf

    def take_in(self, stream: DetachedStream, backlog: Backlog) -> None:
        """Keep what a socket did not take, until it can be written.

        Raises:
            OSError: it is kept, but the socket is not watched.
        """
        stream.backlog = backlog
        if not self._streams:
            self._look_at = backlog.progress + stream.group.heartbeat
        self._streams.add(stream)
        # Arming it again reports at once if the socket has become writable meanwhile.
        self._epoll.modify(stream.descriptor, WATCH | select.EPOLLOUT)

    def add(self, stream: DetachedStream, piece: Piece) -> bool:
        """Keep more for a slow stream; whether that is no more than it may be behind."""
        backlog = stream.backlog
        assert backlog is not None
        backlog.add(piece)
        return backlog.waiting <= BACKLOG and len(backlog.pieces) <= BACKLOG_PIECES

    def write(self, stream: DetachedStream, backlog: Backlog) -> bool:
        """Write what the socket takes; whether that is all of it, and the backlog gone.

        Raises:
            OSError: the client is gone.
        """
        pieces = backlog.pieces
        while pieces:
            rest = memoryview(pieces[0])[backlog.done :]
            try:
                sent = os.write(stream.descriptor, rest)
            except BlockingIOError:
                return False
            backlog.size -= sent
            backlog.progress = time.monotonic()
            if sent < len(rest):
                backlog.done += sent
            else:
                backlog.done = 0
                pieces.popleft()
        self._streams.discard(stream)
        stream.backlog = None
        if backlog.last is None:
            self._epoll.modify(stream.descriptor, WATCH)
        return True

    def forget(self, stream: DetachedStream) -> None:
        """The stream has ended, whether it was slow or not."""
        self._streams.discard(stream)

    def stalled(self, now: float) -> list[DetachedStream]:
        """Give the streams whose clients have taken nothing for two heartbeats, if it is time."""
        if now < self.next():
            return []
        found = []
        self._look_at = math.inf
        for stream in self._streams:
            backlog, heartbeat = stream.backlog, stream.group.heartbeat
            if backlog is None:
                continue
            # The kernel reports room only when there is a lot of it.
            waiting = unacknowledged(stream.descriptor)
            if waiting != backlog.unacknowledged:
                backlog.unacknowledged, backlog.progress = waiting, now
            if now >= slow_at(backlog.progress, heartbeat):
                found.append(stream)
            else:
                self._look_at = min(self._look_at, now + heartbeat / 2)
        return found

    def next(self) -> float:
        """The monotonic time at which to ask for `stalled`; infinite if no stream is slow."""
        return self._look_at if self._streams else math.inf
