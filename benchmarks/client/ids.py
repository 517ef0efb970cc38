"""The ids of a run's events, `<run>.<n>`: every event has one, of one run, and n counts 1, 2, 3."""

from __future__ import annotations

import re

from benchmarks.client.fault import Fault

_ID = re.compile(rb"([0-9a-f]{32})\.(0|[1-9][0-9]*)")


class RunIds:
    """Takes the id of each event of one stream in turn; `run` is the run's once an event has come.

    Where n goes on by more than one events are missing, whatever their data say; where it does not
    grow they were repeated or have changed places.

    `run`, `last`: of a stream that is resumed, the run and the number of the last event before.
    """

    __slots__ = (
        "_behind",
        "_expected",
        "_missing",
        "_next",
        "_others",
        "_unreadable",
        "_without",
        "run",
    )

    def __init__(self, run: str = "", last: int = 0) -> None:
        self.run = run
        self._expected = 0
        self._next = last + 1
        self._missing = 0
        self._behind = 0
        self._without = 0
        self._others = 0
        self._unreadable = b""

    @property
    def last(self) -> int:
        """The number of the last event so far, 0 if there is none."""
        return self._next - 1

    def take(self, event_id: bytes | None) -> None:
        """Take the id of the next event that has data."""
        if event_id is None:
            self._without += 1
            return
        match = _ID.fullmatch(event_id)
        if match is None:
            self._unreadable = self._unreadable or event_id
            return
        run = match[1].decode()
        self.run = self.run or run
        self._others += run != self.run
        ahead = int(match[2]) - self._next
        if ahead < 0:
            self._behind += 1
            return
        self._missing += ahead
        self._next += ahead + 1

    def expect(self, amount: int) -> None:
        """Take it that so many events come in all, up to the one that says how the run ended."""
        self._expected = amount

    def faults(self) -> list[Fault]:
        """Say what was wrong with the ids; where it is known how many come, all should be there."""
        lacking = max(self._expected - (self._next - 1), 0)
        return [
            Fault(kind, amount)
            for kind, amount in (
                ("events without an id", self._without),
                (f"no id of a run: {self._unreadable[:60]!r}", int(bool(self._unreadable))),
                ("ids of another run", self._others),
                ("ids missing", self._missing),
                ("ids missing at the end", lacking),
                ("ids too many", max(self._next - 1 - self._expected, 0) if self._expected else 0),
                ("ids repeated or out of order", self._behind),
            )
            if amount
        ]
