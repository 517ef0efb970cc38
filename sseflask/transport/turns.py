"""Work in a request that could take long gives way to everything else now and then."""

from __future__ import annotations

import time

from sseflask.transport.handoff import cooperative

__all__ = ["Turns"]

#: Seconds after which others get a turn.
_SLICE = 0.002


class Turns:
    """Called between two pieces of work: lets others run, where that is due.

    Does nothing where threads are threads. Not thread-safe: for one piece of work.
    """

    def __init__(self) -> None:
        self._cooperative = cooperative()
        self._until = time.monotonic() + _SLICE

    def __call__(self) -> None:
        if self._cooperative and time.monotonic() > self._until:
            from sseflask.transport.flush import let_loop_run

            let_loop_run()
            self._until = time.monotonic() + _SLICE
