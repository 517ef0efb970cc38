"""Lets the event loop run in between, in work that takes long."""

from __future__ import annotations

import time

from sseflask.loop.callbacks import cooperative

#: Seconds after which other greenlets get a turn.
_SLICE = 0.002


class TimeSlice:
    """Called between two pieces of work: yields to the loop if the slice is over.

    Does nothing without gevent. Not thread-safe: for one piece of work.
    """

    def __init__(self) -> None:
        self._cooperative = cooperative()
        self._until = time.monotonic() + _SLICE

    def __call__(self) -> None:
        if self._cooperative and time.monotonic() > self._until:
            yield_to_loop()
            self._until = time.monotonic() + _SLICE


def yield_to_loop() -> None:
    """Suspend the calling greenlet for a turn of the loop, so that all others get theirs."""
    import gevent

    hub = gevent.get_hub()
    # A zero timer and not sleep(0): the latter can come back before the loop looked at I/O.
    hub.wait(hub.loop.timer(0))
