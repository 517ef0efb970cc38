"""Times at which a publisher has something to do."""

from __future__ import annotations

import time
from collections import deque


class Due:
    """Times that come at a rate from `go` to `finish`, whatever becomes of the ones before.

    Args:
        per_second: how many.
    """

    def __init__(self, per_second: float) -> None:
        self._pause = 1 / per_second
        self._next = 0.0
        self._going = False
        #: Those that have come and are not done, the earliest first.
        self.times: deque[float] = deque()

    def go(self) -> None:
        """Let them come from now on."""
        self._next = time.monotonic()
        self._going = True

    def finish(self) -> None:
        """Let no more come."""
        self._going = False

    def look(self, now: float) -> bool:
        """Add those that have come by now; whether any are not done."""
        while self._going and self._next <= now:
            self.times.append(self._next)
            self._next += self._pause
        return bool(self.times)
