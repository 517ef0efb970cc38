"""Sends what streams have buffered just before the event loop would wait, and not much later.

One `Flusher` serves all streams of a gevent hub: a burst, and events of many streams that fall
into the same turn of the loop, are each sent with as few calls as possible, while an event
with nothing behind it is not delayed at all.
"""

from __future__ import annotations

import math
import time
from weakref import WeakKeyDictionary

import gevent

from sseflask.transport.event_loop import WaitHook, run_soon
from sseflask.transport.long_computations import LongComputations
from sseflask.transport.socket_writer import SocketWriter

#: How long the greenlets of one turn may run before what is buffered is sent anyway, in seconds.
SLICE = 0.002

_flushers: WeakKeyDictionary[gevent.hub.Hub, Flusher] = WeakKeyDictionary()


class Flusher:
    """The streams of one hub that have something to send. Not thread-safe: the hub's thread only.

    Attributes:
        computations: logs what keeps streams from being flushed.
        deadline: the monotonic time at which buffered events have waited long enough, infinite
            while nothing is buffered.
    """

    def __init__(self) -> None:
        self.computations = LongComputations()
        self.deadline = math.inf
        self._buffered: list[SocketWriter] = []
        self._hook = WaitHook(self._before_waiting)

    @classmethod
    def current(cls) -> Flusher:
        """The flusher of the calling thread's hub."""
        hub = gevent.get_hub()
        flusher = _flushers.get(hub)
        if flusher is None:
            flusher = _flushers[hub] = cls()
        return flusher

    def add(self, writer: SocketWriter, now: float) -> None:
        """Have a writer's buffer sent before the loop waits, or by `deadline`."""
        if not self._buffered:
            hook = self._hook
            self.deadline = now + SLICE if hook.reliable else now
            if not hook.available:
                run_soon(self.flush)
        self._buffered.append(writer)

    def flush(self) -> None:
        """Send all that is buffered, as far as the sockets take it. Never blocks."""
        buffered, self._buffered = self._buffered, []
        self.deadline = math.inf
        now = time.monotonic()
        for writer in buffered:
            writer.flush(now)

    def _before_waiting(self) -> None:
        if self._buffered:
            self.flush()
