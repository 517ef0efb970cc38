"""What was read from the store a moment ago, for others that have missed the same. No I/O.

After a deploy, or when a router has restarted, the subscribers of a channel return together, with
the same last event id.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from sseflask.store.api import History, HistoryQuery

#: Seconds for which an answer is given again: what is trimmed meanwhile is given a little longer.
_SECONDS = 1.0

#: Number of answers, each of a page at most: what strangers ask for must not take the memory.
_MOST = 8


class RecentAnswers:
    """The last answers. Not thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._answers: dict[HistoryQuery, tuple[float, History]] = {}

    def get(self, query: HistoryQuery, epoch: str, position: int) -> History | None:
        """An answer that has all up to a position of an epoch; ``None`` if there is none."""
        until, history = self._answers.get(query, (0.0, None))
        if history is None or history.epoch != epoch or history.newest < position:
            return None
        return history if self._clock() < until else None

    def keep(self, query: HistoryQuery, history: History) -> None:
        self._answers.pop(query, None)
        if len(self._answers) >= _MOST:
            del self._answers[next(iter(self._answers))]
        self._answers[query] = (self._clock() + _SECONDS, history)
