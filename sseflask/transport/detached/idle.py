"""Connections whose stream has ended well and that have no greenlet: until their next request."""

from __future__ import annotations

import math
import os
import select
import time
from collections.abc import Callable
from typing import Any

from sseflask.transport.detached.closing import Closing
from sseflask.transport.sockets import LINGER_SECONDS

__all__ = ["Idle"]

#: The next request, or the client's leaving.
_WATCH = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET


class Idle:
    """Keeps connections open for their client's next request. The loop's thread only; never blocks.

    Args:
        epoll: their sockets are in it already.
        closing: closes those whose client does not come back.

    Attributes:
        seconds: how long they are kept (gunicorn's ``keepalive``).
        go_on: takes the descriptor of one whose client has sent something, what came in by, and
            what was read of it before.
    """

    def __init__(self, epoll: select.epoll, closing: Closing) -> None:
        self._epoll = epoll
        self._closing = closing
        self._kept: dict[int, tuple[float, Any, bytes]] = {}
        self._leaving = False
        self.seconds = 0.0
        self.go_on: Callable[[int, Any, bytes], object] = _nobody

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, descriptor: int) -> bool:
        return descriptor in self._kept

    def keep(self, descriptor: int, listener: Any, unread: bytes) -> None:
        """Keep a connection, or let its next request be served that is there already."""
        seconds = min(self.seconds, LINGER_SECONDS) if self._leaving else self.seconds
        self._kept[descriptor] = (time.monotonic() + seconds, listener, unread)
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
        _, listener, unread = self._kept.pop(descriptor)
        self._epoll.unregister(descriptor)
        self.go_on(descriptor, listener, unread)

    def close_overdue(self, now: float) -> None:
        """Close those whose clients have had their time."""
        for descriptor, (due, _, _) in list(self._kept.items()):
            if now < due:
                return  # they are in the order of their ends
            self._close(descriptor)

    def next(self) -> float:
        """The monotonic time at which `close_overdue` is to be called; infinite for never."""
        return next(iter(self._kept.values()))[0] if self._kept else math.inf

    def close_some(self, most: int) -> int:
        """Close up to so many, those that have been kept longest; how many there were."""
        chosen = list(self._kept)[:most]
        for descriptor in chosen:
            self._close(descriptor)
        return len(chosen)

    def leave(self) -> None:
        """The worker is going: those that are idle now are closed, others are kept but shortly."""
        self._leaving = True
        self.close_some(len(self._kept))

    def _close(self, descriptor: int) -> None:
        del self._kept[descriptor]
        self._closing.close(descriptor)


def _nobody(descriptor: int, listener: Any, unread: bytes) -> None:  # noqa: ARG001  # `Idle.go_on`
    os.close(descriptor)
