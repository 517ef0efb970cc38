"""Every event is counted and its number checked: a lost, repeated or misplaced one is a fault."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.client.events import EventReader
from benchmarks.client.fault import Fault
from benchmarks.client.ids import RunIds
from benchmarks.frames import CYCLE, PERIOD, WIDTH

Numbering = Callable[[bytes], "int | None"]
"""Gives the number in an event's data, None where it has none; ValueError if unreadable."""


class OrderCheck:
    """Counts a stream's events and compares their numbers with 0, 1, 2, ... up to `expected`.

    `first`: the number to begin with, where that is not 0. `period`: where the numbers start again
    from 0 (0: never). A number ahead of its turn means that events are missing, one behind it that
    events were repeated or changed places. `ids`: takes every event's id, also of those that have
    no number, where the server has to give them ids.
    """

    __slots__ = (
        "_expected",
        "_next",
        "_number",
        "_period",
        "_reader",
        "behind",
        "events",
        "ids",
        "missing",
        "unreadable",
    )

    def __init__(
        self,
        expected: int,
        number: Numbering = int,
        period: int = 0,
        first: int = 0,
        ids: RunIds | None = None,
    ) -> None:
        self._expected = expected
        self._number = number
        self._period = period
        self._reader = EventReader()
        self._next = first
        self.ids = ids
        self.events = 0
        self.missing = 0
        self.behind = 0
        self.unreadable = b""

    @property
    def next(self) -> int:
        """The number that is to come next."""
        return self._next

    @property
    def complete(self) -> bool:
        """Whether the last event has come."""
        return self._next >= self._expected

    def feed(self, piece: bytes) -> None:
        """Take the next bytes of the stream."""
        if self.ids is None:
            for data in self._reader.feed(piece):
                self._take(data)
            return
        for event_id, data in self._reader.feed_with_ids(piece):
            self.ids.take(event_id)
            self._take(data)

    def _take(self, data: bytes) -> None:
        try:
            number = self._number(data)
        except ValueError:
            self.unreadable = self.unreadable or data
            return
        if number is not None:
            self._count(number)

    def _count(self, number: int) -> None:
        self.events += 1
        ahead = number - self._next
        if self._period:
            half = self._period // 2
            ahead = (ahead + half) % self._period - half
        if ahead < 0:
            self.behind += 1
            return
        self.missing += ahead
        self._next += ahead + 1

    def expect(self, amount: int) -> None:
        """Take it that so many events come in all, where the stream itself says so."""
        self._expected = amount

    def faults(self) -> list[Fault]:
        """Say what was wrong with the events so far; an event not yet sent is not missing."""
        found = [
            Fault(kind, amount)
            for kind, amount in (
                ("events missing", self.missing),
                ("events repeated or out of order", self.behind),
                ("events too many", max(self._next - self._expected, 0)),
                (f"unexpected event {self.unreadable[:60]!r}", int(bool(self.unreadable))),
            )
            if amount
        ]
        return found + (self.ids.faults() if self.ids else [])

    def lacking(self) -> int:
        """Give how many of the expected events have not come."""
        return max(self._expected - self._next, 0)


class FloodCheck(OrderCheck):
    """The same for the flood's ready-made frames, compared in whole buffers while they are exact.

    Anything else in the stream (a comment, a `retry` field, a fault) goes through the parser, and
    the comparison starts again after it.
    """

    __slots__ = ("_partial",)

    _EXPECTED = CYCLE * 3

    def __init__(self, expected: int) -> None:
        super().__init__(expected, _flood_number, PERIOD)
        self._partial = 0

    def feed(self, piece: bytes) -> None:
        """Take the next bytes of the stream."""
        start = self._next % PERIOD * WIDTH + self._partial
        size = len(piece)
        if not self._reader.rest and piece == self._EXPECTED[start : start + size]:
            whole, self._partial = divmod(self._partial + size, WIDTH)
            self.events += whole
            self._next += whole
            return
        if self._partial:
            self._reader.rest = self._EXPECTED[start - self._partial : start]
            self._partial = 0
        super().feed(piece)
        rest = self._reader.rest
        start = self._next % PERIOD * WIDTH
        if rest == self._EXPECTED[start : start + len(rest)]:
            self._partial = len(rest)
            self._reader.rest = b""


def _flood_number(data: bytes) -> int:
    word, _, number = data.partition(b" ")
    if word != b"flood":
        raise ValueError(data)
    return int(number)
