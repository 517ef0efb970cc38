"""The connections of a worker: a greenlet each, or none where the stream goes on without one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent
from gevent.pool import Pool

from sseflask.transport.gunicorn.connection_limit import Places

__all__ = ["Slots"]

_Pool: Any = Pool  # its stubs lack what a pool with other rules has to override


class Slots(_Pool):  # type: ignore[misc]  # the reason stands above
    """gevent's pool, with slots that outlive their greenlet. The loop's thread only.

    Attributes:
        places: asked for room where all slots are taken.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._kept: set[Any] = set()
        self.places = Places(size, self.free_count)

    def free_count(self) -> int:
        """How many more connections there may be."""
        free: int = self._semaphore.counter
        return free

    def full(self) -> bool:
        """Whether a connection would have to wait; what listens asks before it accepts one."""
        if self.free_count() > 0:
            return False
        self.places.make_room()
        return self.free_count() <= 0

    def keep(self) -> None:
        """The calling greenlet's connection outlives it: keep its slot until `give_back`."""
        self._kept.add(gevent.getcurrent())

    def give_back(self) -> None:
        """Such a connection has been closed."""
        self._semaphore.release()
        self.places.recovered()

    def take_back(self, function: Callable[..., object], *arguments: Any) -> None:
        """Such a connection goes on in a new greenlet, with its slot. Never blocks."""
        greenlet = self.greenlet_class(function, *arguments)
        super(_Pool, self).add(greenlet)  # what the pool adds to this is taking a slot
        greenlet.start()

    def _discard(self, greenlet: Any) -> None:
        if greenlet in self._kept:
            self._kept.remove(greenlet)
            super(_Pool, self)._discard(greenlet)  # what the pool adds to this is giving back
        else:
            super()._discard(greenlet)
            self.places.recovered()
