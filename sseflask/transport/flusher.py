"""Sends what streams have buffered just before the event loop would wait, and not much later.

One `Flusher` serves all streams of a gevent hub: a burst, and events of many streams that fall
into the same turn of the loop, are each sent with as few calls as possible, while an event
with nothing behind it is not delayed at all.
"""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import gevent

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from sseflask.transport.socket_writer import Outlet

log = logging.getLogger("sseflask")

#: How long the greenlets of one turn may run before what is buffered is sent anyway, in seconds.
SLICE = 0.002

#: A computation between two events that is longer than this is logged, in seconds.
LONG_COMPUTATION = 0.005

#: Such a line is logged once in so many seconds for a path, of so many paths.
_LOG_INTERVAL, _LOG_PATHS = 60.0, 100

_flushers: WeakKeyDictionary[gevent.hub.Hub, Flusher] = WeakKeyDictionary()


class Flusher:
    """The streams of one hub that have something to send. Not thread-safe: the hub's thread only.

    Attributes:
        deadline: the monotonic time at which buffered events have waited long enough, infinite
            while nothing is buffered.
    """

    def __init__(self, hub: gevent.hub.Hub) -> None:
        self._loop = hub.loop
        self._turn = 0
        self._noted = 0.0
        self._logged: dict[str, float] = {}
        self.deadline = math.inf
        self._buffered: list[Outlet] = []
        # Only libev runs a watcher of negative priority after gevent's own callbacks; a default
        # one runs before them, and an event from a greenlet woken there would wait for the
        # next timer (measured: 200 ms). Elsewhere every event is sent at once.
        self._batching = "libev" in type(hub.loop).__module__
        self._watcher = hub.loop.prepare(ref=False, priority=-2)
        self._watcher.start(self._before_waiting)

    @classmethod
    def current(cls) -> Flusher:
        """The flusher of the calling thread's hub."""
        hub = gevent.get_hub()
        flusher = _flushers.get(hub)
        if flusher is None:
            flusher = _flushers[hub] = cls(hub)
        return flusher

    def add(self, outlet: Outlet, now: float) -> None:
        """Have an outlet's buffer sent before the loop waits, or by `deadline`."""
        if not self._buffered:
            # Until the watcher has been called once it may not be called in this turn: libev
            # collects a phase's watchers before it calls the first.
            self.deadline = now + SLICE if self._batching and self._turn else now
        self._buffered.append(outlet)

    def begin(self, now: float) -> None:
        """A stream begins: what held the loop before were requests, each with a view of its own."""
        self._noted = now

    def note(self, now: float, environ: WSGIEnvironment) -> None:
        """Note that a stream has yielded, and log it if the loop was held for long before.

        That time runs from the last call (or stream's begin), or from the begin of this turn of the
        loop if that came later: `_before_waiting` does not see the first turn's end.
        """
        held, self._noted = now - self._noted, now
        if held > LONG_COMPUTATION:
            self._look_at_computation(held, now, environ)

    def _look_at_computation(self, held: float, now: float, environ: WSGIEnvironment) -> None:
        # The loop's clock stands still in a turn.
        held = min(held, time.time() - self._loop.now())
        path = environ.get("PATH_INFO", "")
        if held <= LONG_COMPUTATION or now < self._logged.get(path, 0.0) + _LOG_INTERVAL:
            return
        if len(self._logged) > _LOG_PATHS:
            self._logged.clear()
        self._logged[path] = now
        log.warning(
            "%.0f ms of computation before an event of %r, by its generator or by other code of "
            "this worker; meanwhile no stream was served. Call gevent.sleep(0) in long "
            "computations, or move them to another process.",
            held * 1000,
            path,
        )

    def flush(self) -> None:
        """Send all that is buffered, as far as the sockets take it. Never blocks."""
        buffered, self._buffered = self._buffered, []
        self.deadline = math.inf
        now = time.monotonic()
        for outlet in buffered:
            outlet.flush(now)

    def _before_waiting(self) -> None:
        self._turn += 1
        if self._buffered:
            self.flush()
