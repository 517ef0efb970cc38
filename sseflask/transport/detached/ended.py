"""Sockets of streams that have ended: closed when it is safe, or kept for the next request."""

from __future__ import annotations

import contextlib
import math
import os
import select
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

from sseflask.transport.sockets import LINGER_SECONDS, borrowed, reset_when_closed

#: What an idle connection is watched for: its next request, or the client's leaving.
_WATCH = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET


class ClosingSockets:
    """Closes descriptors. The loop's thread only; never blocks."""

    def __init__(self, on_close: Callable[[], object]) -> None:
        self.on_close = on_close
        self._lingering: dict[int, float] = {}
        self._postponed: list[int] | None = None

    def __len__(self) -> int:
        return len(self._lingering) + len(self._postponed or ())

    @contextlib.contextmanager
    def postponed(self) -> Iterator[None]:
        """Close none meanwhile: its number could be another socket's while it is written to."""
        self._postponed = []
        try:
            yield
        finally:
            descriptors, self._postponed = self._postponed, None
            for descriptor in descriptors:
                self.close(descriptor)

    def close(self, descriptor: int) -> None:
        if self._postponed is not None:
            self._postponed.append(descriptor)
            return
        with contextlib.suppress(OSError):
            os.close(descriptor)
        self.on_close()

    def reset(self, descriptor: int) -> None:
        with contextlib.suppress(OSError), borrowed(descriptor) as client:
            reset_when_closed(client)
        self.close(descriptor)

    def half_close(self, descriptor: int) -> None:
        """All is sent: close our side, and give the client a little time to close its own."""
        try:
            with borrowed(descriptor) as client:
                client.shutdown(socket.SHUT_WR)
        except OSError:  # the client was faster
            self.close(descriptor)
        else:
            self._lingering[descriptor] = time.monotonic() + LINGER_SECONDS

    def client_closed(self, descriptor: int) -> None:
        """The client has closed its side of a descriptor, which may be half closed here."""
        if self._lingering.pop(descriptor, None) is not None:
            self.close(descriptor)

    def close_overdue(self, now: float) -> None:
        """Close those whose clients have had their time."""
        while self.next() <= now:
            self.client_closed(next(iter(self._lingering)))

    def next(self) -> float:
        """The monotonic time at which `close_overdue` is to be called; infinite for never."""
        return next(iter(self._lingering.values()), math.inf)  # in the order of their ends


def _close(descriptor: int, listener: Any, unread: bytes) -> None:  # noqa: ARG001  # as `go_on`
    os.close(descriptor)


class IdleConnections:
    """Keeps connections open, without a greenlet, for their client's next request.

    Attributes:
        seconds: how long they are kept (gunicorn's ``keepalive``).
        go_on: takes the descriptor of one that has another request, the listening socket's name,
            and what was read of the request before.
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
        while self.next() <= now:
            self._close(next(iter(self._connections)))

    def next(self) -> float:
        times = (due for due, _, _ in self._connections.values())
        return next(times, math.inf)  # in the order of their ends

    def close_some(self, most: int) -> int:
        """Close those that have been kept longest, at most ``most``. Returns how many."""
        chosen = list(self._connections)[:most]
        for descriptor in chosen:
            self._close(descriptor)
        return len(chosen)

    def drain(self) -> None:
        """The worker is going: close those that are idle now, keep later ones for a short time."""
        self._leaving = True
        self.close_some(len(self._connections))

    def _close(self, descriptor: int) -> None:
        del self._connections[descriptor]
        self._closing.close(descriptor)
