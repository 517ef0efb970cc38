"""Sends what streams have buffered just before the event loop would wait, and not much later.

One `Flusher` serves all streams of an event loop. A burst is sent with as few calls as possible,
and so are events of many streams in one turn of the loop. A single event is not delayed.
"""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import gevent

from sseflask.transport.event_loop import WaitHook, run_soon, turn_began
from sseflask.transport.socket_writer import SocketWriter

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment


log = logging.getLogger("sseflask")

#: Seconds that the greenlets of one turn may run before what is buffered is sent anyway.
SLICE_SECONDS = 0.002

#: Seconds of a computation between two events above which it is logged.
LONG_COMPUTATION = 0.005

#: Seconds between two such lines for one path, and how many paths are remembered.
_LOG_INTERVAL, _LOG_PATHS = 60.0, 100


class LongComputations:
    """Measures how long greenlets run between the events of streams. The loop's thread only.

    Attributes:
        checked: the monotonic time of the last call.
    """

    def __init__(self) -> None:
        self.checked = 0.0
        self._logged: dict[str, float] = {}

    def begin(self, now: float) -> None:
        """A stream begins: before, requests held the loop, each for its own view."""
        self.checked = now

    def check(self, now: float, environ: WSGIEnvironment) -> None:
        """A stream has yielded: log it if the loop was held for long, from the last call, the last
        stream's begin, or the begin of this turn of the loop."""
        held, self.checked = now - self.checked, now
        if held <= LONG_COMPUTATION:
            return
        held = min(held, time.time() - turn_began())
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


_flushers: WeakKeyDictionary[gevent.hub.Hub, Flusher] = WeakKeyDictionary()


class Flusher:
    """The streams of one event loop that have something to send. The loop's thread only.

    Attributes:
        deadline: the monotonic time at which buffered events have waited long enough, infinite
            while nothing is buffered.
    """

    def __init__(self) -> None:
        self.computations = LongComputations()
        self.deadline = math.inf
        self._buffered: list[SocketWriter] = []
        self._hook = WaitHook(self.flush)

    @classmethod
    def current(cls) -> Flusher:
        hub = gevent.get_hub()
        flusher = _flushers.get(hub)
        if flusher is None:
            flusher = _flushers[hub] = cls()
        return flusher

    def add(self, writer: SocketWriter, now: float) -> None:
        """Send a writer's buffer before the loop waits, or by `deadline`."""
        if not self._buffered:
            hook = self._hook
            self.deadline = now + SLICE_SECONDS if hook.reliable else now
            if not hook.available:
                run_soon(self.flush)
        self._buffered.append(writer)

    def take(self, writer: SocketWriter, environ: WSGIEnvironment) -> bool:
        """The same for an item, which is all that the writer has buffered.

        Returns whether what is buffered has waited long enough.
        """
        now, computations = time.monotonic(), self.computations
        if now - computations.checked > LONG_COMPUTATION:
            computations.check(now, environ)
        else:
            computations.checked = now
        buffered = self._buffered
        if not buffered:
            self.add(writer, now)
        else:
            buffered.append(writer)
        return now >= self.deadline

    def flush(self) -> None:
        """Send all that is buffered, as far as the sockets take it. Never blocks."""
        if not self._buffered:
            return
        buffered, self._buffered = self._buffered, []
        self.deadline = math.inf
        now = time.monotonic()
        for writer in buffered:
            writer.flush(now)
