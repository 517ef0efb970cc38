"""Connections whose stream has ended well and that have no greenlet: until their next request."""

from __future__ import annotations

import math
import os
import select
import time
from collections.abc import Callable
from typing import Any

from sseflask.transport.detached.closing import ClosingSockets
from sseflask.transport.sockets import LINGER_SECONDS

#: The next request, or the client's leaving.
_WATCH = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET


def _close(descriptor: int, listener: Any, unread: bytes) -> None:  # noqa: ARG001  # as `go_on`
    os.close(descriptor)


class IdleConnections:
    """Keeps connections open for their client's next request. The loop's thread only; never blocks.

    Args:
        epoll: has their sockets already.
        closing: closes those without another request.

    Attributes:
        seconds: how long they are kept (gunicorn's ``keepalive``).
        go_on: takes the descriptor of one that has another request, what it came in by, and what
            was read of it before.
    """

    def __init__(self, epoll: select.epoll, closing: ClosingSockets) -> None:
        self._epoll = epoll
        self._closing = closing
        self._connections: dict[int, tuple[float, Any, bytes]] = {}
        self._leaving = False
        self.seconds = 0.0
        self.go_on: Callable[[int, Any, bytes], object] = _close

    def __len__(self) -> int:
        return len(self._connections)

    def __contains__(self, descriptor: int) -> bool:
        return descriptor in self._connections

    def add(self, descriptor: int, listener: Any, unread: bytes) -> None:
        """Keep a connection, or let its next request be served that is there already."""
        seconds = min(self.seconds, LINGER_SECONDS) if self._leaving else self.seconds
        self._connections[descriptor] = (time.monotonic() + seconds, listener, unread)
        try:
            # Reports at once what is there already.
            self._epoll.modify(descriptor, _WATCH)
        except OSError:  # it could not be watched in the first place
            self._close(descriptor)
        else:
            if unread:
                self.happened(descriptor, select.EPOLLIN)

    def happened(self, descriptor: int, events: int) -> None:
        """Something has come, or the client has gone."""
        if not events & select.EPOLLIN or events & (select.EPOLLERR | select.EPOLLHUP):
            self._close(descriptor)
            return
        _, listener, unread = self._connections.pop(descriptor)
        self._epoll.unregister(descriptor)
        self.go_on(descriptor, listener, unread)

    def close_overdue(self, now: float) -> None:
        """Close those whose clients have had their time."""
        while self.next() <= now:
            self._close(next(iter(self._connections)))

    def next(self) -> float:
        """The monotonic time at which `close_overdue` is to be called; infinite for never."""
        times = (due for due, _, _ in self._connections.values())
        return next(times, math.inf)  # in the order of their ends

    def close_some(self, most: int) -> int:
        """Close up to so many, those that have been kept longest; how many there were."""
        chosen = list(self._connections)[:most]
        for descriptor in chosen:
            self._close(descriptor)
        return len(chosen)

    def leave(self) -> None:
        """The worker is going: those that are idle now are closed, others are kept but shortly."""
        self._leaving = True
        self.close_some(len(self._connections))

    def _close(self, descriptor: int) -> None:
        del self._connections[descriptor]
        self._closing.close(descriptor)
