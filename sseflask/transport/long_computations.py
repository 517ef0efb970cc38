"""Logs what holds the event loop for long: meanwhile no stream is served."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from sseflask.transport.event_loop import turn_began

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment


log = logging.getLogger("sseflask")

#: A computation between two events that is longer than this is logged, in seconds.
LONG_COMPUTATION = 0.005

#: Such a line is logged once in so many seconds for a path, of so many paths.
_LOG_INTERVAL, _LOG_PATHS = 60.0, 100


class LongComputations:
    """Measures how long greenlets run between the events of streams. The loop's thread only."""

    def __init__(self) -> None:
        self._checked = 0.0
        self._logged: dict[str, float] = {}

    def begin(self, now: float) -> None:
        """A stream begins: before, requests held the loop, each for its own view."""
        self._checked = now

    def check(self, now: float, environ: WSGIEnvironment) -> None:
        """A stream has yielded: log it if the loop was held for long before.

        That time runs from the last call (or stream's begin), or from the begin of this turn of the
        loop if that came later.
        """
        held, self._checked = now - self._checked, now
        if held > LONG_COMPUTATION:
            self._check_turn(held, now, environ)

    def _check_turn(self, held: float, now: float, environ: WSGIEnvironment) -> None:
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
