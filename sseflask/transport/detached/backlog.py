"""What sockets have not taken: kept, written when they take it, and bounded in size and time."""

from __future__ import annotations

import math
import os
import select
import time

from sseflask.transport.detached.group import Backlog, DetachedStream
from sseflask.transport.sockets import unacknowledged

__all__ = ["WATCH", "Backlogs"]

#: Bytes, and pieces, that a client may be behind before it is cut; it can resume. Not counting the
#: one piece that is being written: it may be a picture.
BACKLOG, BACKLOG_PIECES = 4 << 20, 10_000

#: What the socket of a stream without a backlog is watched for: its client's leaving.
WATCH = select.EPOLLRDHUP | select.EPOLLET


class Backlogs:
    """The streams that are behind. The loop's thread only; never blocks.

    It says what has become of a backlog; who asks cuts, or ends, the stream.

    Args:
        epoll: the streams' sockets are in it.
    """

    def __init__(self, epoll: select.epoll) -> None:
        self._epoll = epoll
        self._behind: set[DetachedStream] = set()
        self._look_at = math.inf

    def keep(self, stream: DetachedStream, backlog: Backlog) -> None:
        """Keep what a socket did not take, until it can be written.

        Raises:
            OSError: it is kept, but the socket is not watched: nobody will tell.
        """
        stream.backlog = backlog
        if not self._behind:
            self._look_at = backlog.progress + stream.group.heartbeat
        self._behind.add(stream)
        # Arming it again reports at once if the socket has become writable meanwhile.
        self._epoll.modify(stream.descriptor, WATCH | select.EPOLLOUT)

    def add(self, stream: DetachedStream, data: bytes, events: int, body: int) -> bool:
        """Have more kept for a stream that is behind; whether that is no more than it may be."""
        backlog = stream.backlog
        assert backlog is not None
        backlog.add(data, events, body)
        waiting = backlog.size - len(backlog.pieces[0]) + backlog.done
        return waiting <= BACKLOG and len(backlog.pieces) <= BACKLOG_PIECES

    def write(self, stream: DetachedStream, backlog: Backlog) -> bool:
        """Write what the socket takes; whether that is all of it, and the stream no longer behind.

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
        self._behind.discard(stream)
        stream.backlog = None
        if backlog.last is None:
            self._epoll.modify(stream.descriptor, WATCH)
        return True

    def forget(self, stream: DetachedStream) -> None:
        """The stream has ended, whether it was behind or not."""
        self._behind.discard(stream)

    def stalled(self, now: float) -> list[DetachedStream]:
        """Give the streams that have taken nothing for two heartbeats, where it is time to look."""
        if now < self.next():
            return []
        found = []
        self._look_at = math.inf
        for stream in self._behind:
            backlog, heartbeat = stream.backlog, stream.group.heartbeat
            if backlog is None:
                continue
            # The kernel tells of room only when there is a lot of it.
            waiting = unacknowledged(stream.descriptor)
            if waiting != backlog.waiting:
                backlog.waiting, backlog.progress = waiting, now
            if now >= backlog.progress + 2 * heartbeat:
                found.append(stream)
            else:
                self._look_at = min(self._look_at, now + heartbeat / 2)
        return found

    def next(self) -> float:
        """The monotonic time at which to ask for `stalled`; infinite where nobody is behind."""
        return self._look_at if self._behind else math.inf
