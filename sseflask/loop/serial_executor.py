"""One greenlet that does jobs one after another."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Any

import gevent
from gevent.event import Event as Signal

log = logging.getLogger("sseflask")


class SerialExecutor:
    """Runs jobs one after another, each to its end before the next. The loop's thread only."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._wake = Signal()
        self._greenlet = gevent.spawn(self._work)

    def submit(self, function: Callable[..., object], *arguments: Any) -> None:
        """Add a job, which is done after those that wait; it may give way. Never blocks."""
        self._waiting.append((function, arguments))
        self._wake.set()

    def _work(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            while self._waiting:
                function, arguments = self._waiting.popleft()
                try:
                    function(*arguments)
                except Exception:
                    log.exception("a job of the writing greenlet failed")
