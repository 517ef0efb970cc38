"""The connections of a worker, how many there may be, and what happens when it has all of them.

A connection has a greenlet, or none while a stream goes on without one. One that waits for its
client can be closed to make room. Requests that take long leave some connections to those that do
not. The log says once that there is no room, and says it again only after there was some.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gevent
from gevent.event import Event as Signal

from sseflask.counters.counts import provide
from sseflask.transport.event_loop import start_timer

if TYPE_CHECKING:
    from sseflask.transport.detached.registry import DetachedStreams
    from sseflask.transport.gunicorn.client_connection import ClientConnection


log = logging.getLogger("sseflask")

#: Connections that are reserved for short requests: one in twenty, and at most this many.
_MOST_RESERVED = 100

#: Seconds that a client has at least, however full the worker is: what it sends may be on its way.
_PATIENCE = 0.05

#: Seconds for which a worker that is about to end still waits for another request.
LAST_SECONDS = 1.0

#: Seconds without a free connection after which the log says so.
_STUCK = 0.5


class ConnectionLimit:
    """How many connections one worker has. Belongs to the loop's thread; never blocks.

    Attributes:
        waiting: the connections that wait for their client, those that began first in front.
        detached: the streams that go on without a greenlet; ``None`` on a worker that has none.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._count = 0
        self._long = 0
        self.waiting: dict[ClientConnection, None] = {}
        self.detached: DetachedStreams | None = None
        self._timer: Any = None
        self._stuck_since = 0.0
        self._logged_full = False
        self._logged_long = False

    def provide_gauges(self) -> None:
        provide("connections", lambda: self._count)
        provide("most_connections", lambda: self._size)

    def add(self) -> None:
        self._count += 1

    def remove(self) -> None:
        self._count -= 1
        self._stuck_since = 0.0
        if self._logged_full and self._size - self._count >= max(1, self._size // 10):
            self._logged_full = False

    @property
    def full(self) -> bool:
        return self._count >= self._size

    # -- long requests ---------------------------------------------------------------------------

    def begin_long(self) -> bool:
        """Whether one more long request may begin; it counts until `end_long`."""
        reserved = min(_MOST_RESERVED, max(1, self._size // 20)) if self._size > 1 else 0
        most = self._size - reserved
        taken = self._long + (0 if self.detached is None else self.detached.streams)
        if taken >= most:
            if not self._logged_long:
                self._logged_long = True
                log.warning(
                    "this worker has %d streams and other long requests, and keeps %d of its %d "
                    "connections for short ones: further streams get 503 until some end. Raise "
                    "worker_connections, and the limit on open files that it is derived from, or "
                    "start more workers.",
                    taken,
                    reserved,
                    self._size,
                )
            return False
        if taken < most * 0.9:
            self._logged_long = False
        self._long += 1
        return True

    def end_long(self) -> None:
        """A long request has ended, or its stream goes on without a greenlet."""
        self._long -= 1

    # -- connections that wait -------------------------------------------------------------------

    def wait(self, connection: ClientConnection) -> None:
        """Note that a connection waits for its client."""
        self.waiting.setdefault(connection)
        if self.full:
            self._look_soon()

    def close_silent_soon(self) -> None:
        """The worker is about to end: close what is silent, after a request had time to arrive."""
        gevent.spawn_later(LAST_SECONDS, self._close_silent)

    def _close_silent(self) -> None:
        for connection in list(self.waiting):
            if connection.silent and connection.evictable:
                connection.evict()

    def make_room(self) -> None:
        """If there may be no more, close those that have waited longest for their client."""
        if not self.full:
            self._stuck_since = 0.0
            return
        leaving = sum(connection.evicted for connection in self.waiting)
        most = max(1, self._size // 2) - leaving
        begun_before = time.monotonic() - _PATIENCE
        closed = 0
        for connection in list(self.waiting):
            if closed >= most or connection.since > begun_before:
                break
            if connection.evictable:
                connection.evict()
                closed += 1
        if self.detached is not None:
            closed += self.detached.table.idle.close_some(max(0, most - closed))
        if closed or leaving or any(connection.blocked for connection in self.waiting):
            self._stuck_since = 0.0
        elif not self._stuck_since:
            self._stuck_since = time.monotonic()
        elif time.monotonic() > self._stuck_since + _STUCK and not self._logged_full:
            self._logged_full = True
            log.warning(
                "this worker has all the %d connections that it may (worker_connections), and all "
                "are busy: it accepts no more until one ends. Raise worker_connections, and the "
                "limit on open files that it is derived from, or start more workers.",
                self._size,
            )
        self._look_soon()

    def _look_soon(self) -> None:
        if self._timer is None:
            self._timer = start_timer(_PATIENCE, self._look, keeps_loop=False)

    def _look(self) -> None:
        self._timer.close()
        self._timer = None
        self.make_room()


class _ConnectionGreenlet(gevent.Greenlet):  # type: ignore[type-arg]  # not generic at run time
    """Serves a connection, and does not record where it was spawned: always here.

    Attributes:
        connection: the `ClientConnection`.
        parked: whether it waits for another connection.
        known: whether other greenlets have run since it began.
    """

    # With these it needs no dictionary: gevent sets `_run`.
    __slots__ = ("_run", "connection", "known", "parked")
    spawning_stack_limit = 0

    connection: ClientConnection | None
    parked: bool
    known: bool

    def park(self) -> Any:
        """Wait for another connection, with the arguments of which it is called."""
        self.connection = None
        self.gr_context = None  # what this connection has left in context variables
        self.parked = True
        try:
            return gevent.get_hub().switch()
        finally:
            self.parked = False


class ConnectionPool:
    """Counts connections, which may outlive their greenlet: gevent's own pool counts greenlets.

    A greenlet whose connection has been handed over serves the next one, if no other greenlet has
    run since it began: nobody has come to know it, who could kill it in place of another. Python
    takes 16 KiB for the frames of each new greenlet from the system, and gives them back.
    """

    def __init__(self, size: int) -> None:
        self.limit = ConnectionLimit(size)
        self._scheduled = 0
        self._greenlets: set[Any] = set()
        self._parked: tuple[Any, _ConnectionGreenlet] | None = None
        self._idle = Signal()
        self._idle.set()
        self._at_end = self._on_end  # one method for all greenlets
        self._handing_over: set[Any] = set()
        self._on_room: dict[Callable[[], object], None] = {}

    def __len__(self) -> int:
        """How many connections have a greenlet."""
        return len(self._greenlets) + self._scheduled

    def is_full(self, on_room: Callable[[], object]) -> bool:
        """Whether no connection may be accepted; ``on_room`` is then called once when one may."""
        limit = self.limit
        if limit.full:
            limit.make_room()
            if limit.full:
                self._on_room[on_room] = None
                return True
        return False

    def spawn(self, function: Callable[..., object], *arguments: Any) -> None:
        """Serve a new connection in a greenlet; ``function`` may go on with `next`."""
        self.limit.add()
        self.respawn(function, *arguments)

    def respawn(self, function: Callable[..., object], *arguments: Any) -> None:
        """Serve a connection in a greenlet that was counted before, and had none any more."""
        self._scheduled += 1
        self._idle.clear()
        gevent.get_hub().loop.run_callback(self._begin, function, arguments)

    def _begin(self, function: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        """Serve a connection until it waits for something. In the hub."""
        self._scheduled -= 1
        parked, self._parked = self._parked, None
        if parked is not None and parked[0] == function and parked[1].parked:
            greenlet = parked[1]
            self._greenlets.add(greenlet)
            greenlet.switch(arguments)
        else:
            greenlet = _ConnectionGreenlet(function, *arguments)
            greenlet.parked = greenlet.known = False
            greenlet.rawlink(self._at_end)
            self._greenlets.add(greenlet)
            greenlet.switch()
        if greenlet.parked:
            self._parked = function, greenlet
        else:
            greenlet.known = True

    def next(self) -> Any:
        """The calling greenlet's connection is over: wait for the arguments of another one.

        Returns ``None`` if the greenlet is to end.
        """
        greenlet: Any = gevent.getcurrent()
        if self._end(greenlet) or greenlet.known:
            return None
        return greenlet.park()

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
        """Block for at most ``seconds``. Returns whether no connection has a greenlet."""
        return bool(self._idle.wait(seconds))

    def kill(self, seconds: float) -> None:
        """Kill the greenlets, and block until they have ended, for at most ``seconds``."""
        with gevent.Timeout(seconds, False):  # type: ignore[arg-type]  # documented: end the block
            while len(self):
                gevent.killall(list(self._greenlets))
                gevent.sleep(0)  # those that are scheduled begin, `_on_end` is called

    def _on_end(self, greenlet: Any) -> None:
        if greenlet in self._greenlets:
            self._end(greenlet)

    def _end(self, greenlet: Any) -> bool:
        """A greenlet has no connection any more. Returns whether that is closed."""
        self._greenlets.discard(greenlet)
        if not (self._greenlets or self._scheduled):
            self._idle.set()
        if greenlet in self._handing_over:
            self._handing_over.remove(greenlet)
            return False
        self.release()
        return True
