"""How many connections a worker has, and what becomes of them when there are no more.

What waits for its client can be closed to make room; what takes long leaves some places to what
does not. Either is said in the log once, and again only after it has been better.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gevent

from sseflask.counters.gauges import provide

if TYPE_CHECKING:
    from sseflask.transport.gunicorn.client_deadlines import Visit

__all__ = ["LAST_SECONDS", "Places", "watch"]

log = logging.getLogger("sseflask")

#: Of every twenty connections what takes long leaves one to others, up to this many.
_MOST_RESERVED = 100

#: Seconds that a client has at least, however full the worker is: what it sends may be on its way.
_PATIENCE = 0.05

#: Seconds for which a worker that is going still waits for another request.
LAST_SECONDS = 1.0

#: Seconds for which nobody can be accepted until that is said.
_STUCK = 0.5


class Places:
    """The connections of one worker. Belongs to the loop's thread; never blocks.

    Args:
        size: how many connections there may be (gunicorn's ``worker_connections``).
        free: how many more there may be now.

    Attributes:
        waiting: the visits that have waited for their client, those that began first in front.
        detached: how many streams go on without a visit.
        close_idle: closes up to so many idle connections that have no visit, and says how many.
    """

    def __init__(self, size: int, free: Callable[[], int]) -> None:
        self._size = size
        self._free = free
        self.waiting: dict[Visit, None] = {}
        self.detached: Callable[[], int] = _none
        self.close_idle: Callable[[int], int] = _no_idle
        self._long = 0
        self._timer: Any = None
        self._stuck_since = 0.0
        self._said_full = False
        self._said_long = False

    @property
    def full(self) -> bool:
        """Whether all places are taken."""
        return self._free() <= 0

    @property
    def reserved(self) -> int:
        """Connections that what takes long leaves to others: publishers, health checks."""
        wanted = max(1, self._size // 20) if self._size > 1 else 0
        return min(_MOST_RESERVED, wanted)

    # -- what takes long ------------------------------------------------------------------------

    def enter(self) -> bool:
        """Whether there is a place for one more that takes long; it is taken until `leave`."""
        most = self._size - self.reserved
        taken = self._long + self.detached()
        if taken >= most:
            if not self._said_long:
                self._said_long = True
                log.warning(
                    "this worker has %d streams and other long requests, and keeps %d of its %d "
                    "connections for short ones: further streams get 503 until some end. Raise "
                    "worker_connections, and the limit on open files that it is derived from, or "
                    "start more workers.",
                    taken,
                    self.reserved,
                    self._size,
                )
            return False
        if self._said_long and taken < most * 0.9:
            self._said_long = False
        self._long += 1
        return True

    def leave(self) -> None:
        """Give such a place back."""
        self._long -= 1

    def close(self) -> None:
        """The worker is going: what is idle is closed, but not under a request on its way."""
        gevent.spawn_later(LAST_SECONDS, self._close_silent_visits)

    def _close_silent_visits(self) -> None:
        for visit in list(self.waiting):
            if visit.silent and visit.blocked and not visit.has_news:
                visit.evict()

    # -- when all are taken -----------------------------------------------------------------------

    def wait(self, visit: Visit) -> None:
        """Note that a visit waits for its client."""
        self.waiting.setdefault(visit)
        if self.full:
            self._look_soon()

    def make_room(self) -> None:
        """All places are taken: close what only waits, those that have waited longest."""
        if not self.full:
            self._stuck_since = 0.0
            return
        leaving = sum(visit.evicted for visit in self.waiting)
        most = max(1, self._size // 2) - leaving
        begun_before = time.monotonic() - _PATIENCE
        closed = 0
        for visit in list(self.waiting):
            if closed >= most or visit.since > begun_before:
                break
            if visit.blocked and not visit.evicted and not visit.has_news:
                visit.evict()
                closed += 1
        closed += self.close_idle(max(0, most - closed))
        if closed or leaving or any(visit.blocked for visit in self.waiting):
            self._stuck_since = 0.0
        elif not self._stuck_since:
            self._stuck_since = time.monotonic()
        elif time.monotonic() > self._stuck_since + _STUCK:
            self._say_full()
        self._look_soon()

    def recovered(self) -> None:
        """A place has become free: may be that there are enough again."""
        self._stuck_since = 0.0
        if self._said_full and self._free() >= max(1, self._size // 10):
            self._said_full = False

    def _look_soon(self) -> None:
        if self._timer is None:
            self._timer = gevent.get_hub().loop.timer(_PATIENCE, ref=False)
            self._timer.start(self._look)

    def _look(self) -> None:
        self._timer.close()
        self._timer = None
        self.make_room()

    def _say_full(self) -> None:
        if not self._said_full:
            self._said_full = True
            log.warning(
                "this worker has all the %d connections that it may (worker_connections), and all "
                "are busy: it accepts no more until one ends. Raise worker_connections, and the "
                "limit on open files that it is derived from, or start more workers.",
                self._size,
            )


def watch(worker: Any) -> None:
    """Have gunicorn's own gevent worker say when it is full. For the ``post_worker_init`` hook."""
    handle, size = worker.handle, worker.worker_connections
    taken = 0
    places = Places(size, lambda: size - taken)
    provide("connections", lambda: taken)
    provide("most_connections", lambda: size)

    def counted(*arguments: Any) -> None:
        nonlocal taken
        taken += 1
        places.make_room()
        try:
            handle(*arguments)
        finally:
            taken -= 1
            places.recovered()

    worker.handle = counted


def _none() -> int:
    return 0


def _no_idle(most: int) -> int:  # noqa: ARG001  # what may be closed
    return 0
