"""The queries that a store's thread answers: in steps, in turn, equal ones once.

The thread writes as well, and writing comes first. So the answer to a query is made in steps of
about a millisecond, and all of them together take a part of the thread's time only.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from sseflask.loop.callbacks import Done, call_guarded
from sseflask.store.api import History, HistoryQuery
from sseflask.store.sqlite.event_database import EventDatabase
from sseflask.store.sqlite.pattern_channels import Steps

#: Seconds of reading before a pause, and the pause as a part of them: the queries of many clients
#: must not take all of a core.
_STRETCH, _PAUSE = 0.005, 0.5


@dataclass(slots=True)
class _Reading:
    query: HistoryQuery
    dones: list[Done] = field(default_factory=list)
    steps: Steps[History] | None = None


class Readings:
    """The queries that have no answer yet. Used by the store's thread alone."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._queue: deque[_Reading] = deque()
        self._not_begun: dict[HistoryQuery, _Reading] = {}
        self._spent = 0.0
        self._due = 0.0

    @property
    def due(self) -> float | None:
        """When the next step is to be done, by the clock; ``None`` if there is none."""
        return self._due if self._queue else None

    def add(self, query: HistoryQuery, done: Done) -> None:
        """Read for a query, together with an equal one that has not begun.

        One that has begun may lack the newest events.
        """
        reading = self._not_begun.get(query)
        if reading is None:
            reading = self._not_begun[query] = _Reading(query)
            self._queue.append(reading)
        reading.dones.append(done)

    def restart(self) -> None:
        """Begin all anew: the database has been opened again, and may be another one."""
        for reading in self._queue:
            reading.steps = None

    def refuse(self, error: Exception) -> None:
        self._not_begun.clear()
        while self._queue:
            _answer(self._queue.popleft(), None, error)

    def step(self, database: EventDatabase) -> None:
        """Do a step if one is due, and answer if it was a reading's last."""
        began = self._clock()
        if not self._queue or began < self._due:
            return
        reading = self._queue.popleft()
        try:
            if reading.steps is None:
                if self._not_begun.get(reading.query) is reading:
                    del self._not_begun[reading.query]
                reading.steps = database.history(reading.query)
            next(reading.steps)
        except StopIteration as end:
            _answer(reading, end.value, None)
        except Exception as error:
            _answer(reading, None, error)
        else:
            self._queue.append(reading)
        now = self._clock()
        self._spent += now - began
        if self._spent >= _STRETCH:
            self._due = now + self._spent * _PAUSE
            self._spent = 0.0


def _answer(reading: _Reading, history: History | None, error: Exception | None) -> None:
    for done in reading.dones:
        call_guarded("what waited for a reading of the event store", done, history, error)
