"""The connections of a worker: a greenlet each, or none while a stream goes on without one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent
from gevent.event import Event as Signal

from sseflask.transport.gunicorn.connection_limit import ConnectionLimit

__all__ = ["ConnectionPool"]


class ConnectionPool:
    """Counts connections, which may outlive their greenlet. The loop's thread only.

    gevent's own pool counts greenlets, so it can't be used.

    Args:
        size: how many connections there may be.

    Attributes:
        limit: what keeps the count, and makes room when all connections are taken.
    """

    def __init__(self, size: int) -> None:
        self.limit = ConnectionLimit(size)
        self._greenlets: set[Any] = set()
        self._idle = Signal()
        self._idle.set()
        self._handing_over: set[Any] = set()
        self._on_room: dict[Callable[[], object], None] = {}

    def __len__(self) -> int:
        """How many connections have a greenlet."""
        return len(self._greenlets)

    def is_full(self, on_room: Callable[[], object]) -> bool:
        """Whether no connection may be accepted, not even instead of another one.

        Args:
            on_room: called once when one may, if it is full.
        """
        if self.limit.full:
            self.limit.make_room()
        if self.limit.full:
            self._on_room[on_room] = None
        return self.limit.full

    def spawn(self, function: Callable[..., object], *arguments: Any) -> None:
        """Serve a new connection in a greenlet."""
        self.limit.add()
        self.respawn(function, *arguments)

    def respawn(self, function: Callable[..., object], *arguments: Any) -> None:
        """Serve a connection in a greenlet that was counted before, and had none any more."""
        greenlet = gevent.Greenlet(function, *arguments)
        greenlet.rawlink(self._on_end)
        self._greenlets.add(greenlet)
        self._idle.clear()
        greenlet.start()

    def hand_over(self) -> None:
        """The calling greenlet's connection outlives it: go on to count it until `release`."""
        self._handing_over.add(gevent.getcurrent())

    def release(self) -> None:
        """A connection has been closed."""
        self.limit.remove()
        on_room, self._on_room = self._on_room, {}
        for function in on_room:
            function()

    def join(self, seconds: float) -> bool:
        """Block until no connection has a greenlet, so many seconds at most; whether that is so."""
        return bool(self._idle.wait(seconds))

    def kill(self, seconds: float) -> None:
        """Kill the greenlets, and block until they have ended, so many seconds at most."""
        with gevent.Timeout(seconds, False):  # type: ignore[arg-type]  # documented: end the block
            while self._greenlets:
                gevent.killall(list(self._greenlets))
                gevent.sleep(0)  # `_on_end` is called in the next turn of the loop

    def _on_end(self, greenlet: Any) -> None:
        self._greenlets.discard(greenlet)
        if not self._greenlets:
            self._idle.set()
        if greenlet in self._handing_over:
            self._handing_over.remove(greenlet)
        else:
            self.release()
