"""What is being read of a log for clients: in steps, taken in turn, equal ones once. No I/O itself.

One thread writes and reads, and writing comes first. So a reading is cut into steps of about a
millisecond, and all of them together take a part of the thread's time only.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from sseflask.store.api import Ends, History, Log, Steps
from sseflask.store.names import Pattern
from sseflask.store.sqlite.thread import Done

__all__ = ["Asked", "Readings"]

log = logging.getLogger("sseflask")

#: Seconds of reading after which there is a pause, and how long that is in proportion: what many
#: clients ask for at once must not take all of a core.
_STRETCH, _PAUSE = 0.005, 0.5


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be read; see `Log.history`."""

    patterns: tuple[Pattern, ...]
    after: int
    limit: int
    ends: Ends = "forgotten"


class _Reading:
    __slots__ = ("dones", "steps")

    def __init__(self) -> None:
        self.dones: list[Done] = []
        self.steps: Steps[History] | None = None


class Readings:
    """The readings that are under way. Only the log's thread may use it.

    Args:
        clock: gives the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._under_way: OrderedDict[Asked, _Reading] = OrderedDict()
        self._spent = 0.0
        self._due = 0.0

    @property
    def due(self) -> float | None:
        """When the next step is to be done, by the clock; ``None`` where there is none."""
        return self._due if self._under_way else None

    def add(self, asked: Asked, done: Done) -> None:
        """Begin a reading, or wait for one of the same.

        One that has begun will do: it may end before what has been stored since, never beyond.
        """
        self._under_way.setdefault(asked, _Reading()).dones.append(done)

    def restart(self) -> None:
        """Begin all anew: the log has been opened again, and may be another one."""
        for reading in self._under_way.values():
            reading.steps = None

    def refuse(self, error: Exception) -> None:
        """Answer all with an error."""
        while self._under_way:
            _, reading = self._under_way.popitem(last=False)
            _answer(reading, None, error)

    def step(self, store: Log) -> None:
        """Do a step, if one is due, and answer where it was the last."""
        began = self._clock()
        if not self._under_way or began < self._due:
            return
        asked, reading = self._under_way.popitem(last=False)
        try:
            if reading.steps is None:
                reading.steps = store.history(asked.patterns, asked.after, asked.limit, asked.ends)
            next(reading.steps)
        except StopIteration as end:
            _answer(reading, end.value, None)
        except Exception as error:
            _answer(reading, None, error)
        else:
            self._under_way[asked] = reading  # behind the others
        now = self._clock()
        self._spent += now - began
        if self._spent >= _STRETCH:
            self._due = now + self._spent * _PAUSE
            self._spent = 0.0


def _answer(reading: _Reading, history: History | None, error: Exception | None) -> None:
    for done in reading.dones:
        try:
            done(history, error)
        except Exception:
            log.exception("what waited for a reading of the channel log failed")
