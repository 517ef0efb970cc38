"""Where a process is in the tail of all events, and what in it is new. No I/O.

Each entry of the tail says what came before it: the newest number and the count of notices. So a
process sees whether it has missed something.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

from sseflask.store.api import Entry
from sseflask.store.tail import News, Notice, NoticeKind, Skipped

log = logging.getLogger("sseflask")


class Place(NamedTuple):
    """A place in the tail, as the server says it."""

    generation: str
    epoch: str
    newest: int  # the highest number given out before it
    notices: int  # how many there were before it
    since: int  # how many of them came after the newest event


class Renewed(NamedTuple):
    """From here on the numbers have another epoch."""

    epoch: str
    newest: int


#: Entries of the tail that are read at once, at first and at most, and bytes of them, about.
FIRST_ENTRIES, _MOST_ENTRIES, _MOST_BYTES = 8, 64, 1 << 20


def next_count(count: int, rows: Sequence[Any]) -> int:
    """How many entries to read next: Redis and this process hold all of them at once.

    Args:
        count: how many were to be read.
        rows: those that came.
    """
    size = sum(len(field) for _, fields in rows for field in fields)
    if size > _MOST_BYTES:
        return max(1, len(rows) * _MOST_BYTES // size)
    return min(2 * count, _MOST_ENTRIES) if len(rows) == count else count


class EventTail:
    """The place of one process. Not thread-safe."""

    def __init__(self) -> None:
        self.generation = ""  # empty until the server has been looked at
        self.epoch = ""
        self.position = 0  # the number up to which events were news
        self.noticed = 0  # the number up to which notices were news
        self.nonce = b""  # of the last event's batch
        #: How often the server had less than was news, or something else. What was asked for before
        #: that was asked for from a place that is none any more.
        self.turns = 0
        self._since = 0

    @property
    def cursor(self) -> str:
        """The id of the last entry that was news."""
        return f"{self.position}-{self._since}"

    def open(self, place: Place) -> bool:
        """Take what the server says. Returns whether it is another store than before.

        Only what follows is news then.
        """
        if (place.generation, place.epoch) == (self.generation, self.epoch):
            if place.notices < self.noticed:
                # The server has lost some, and gives their numbers to others.
                self.turns += 1
                self.noticed = place.notices
                if place.newest == self.position:
                    self._since = place.since
            return False
        self.turns += 1
        self.generation, self.epoch = place.generation, place.epoch
        self._go(place)
        return True

    def has(self, place: Place) -> bool:
        """Whether everything up to a place was news, or never will be."""
        return place.generation != self.generation or (
            self.position >= place.newest and self.noticed >= place.notices
        )

    def take_own(self, before: Place, last: int, nonce: bytes) -> bool:
        """Take events up to ``last`` that this process has stored itself, without reading them.

        Returns whether they are the next news; if not they come with the tail.
        """
        at = (self.generation, self.position, self.noticed)
        if at != (before.generation, before.newest, before.notices):
            return False
        self.position, self._since, self.nonce = last, 0, nonce
        return True

    def take(self, rows: Sequence[Any]) -> list[News | Renewed]:
        """Take entries of the tail, as Redis gives them. Returns those that are new."""
        news: list[News | Renewed] = []
        entries: list[Entry] = []
        for id, fields in rows:
            number, _, since = id.partition(b"-")
            number, since = int(number), int(since)
            if (number, since) <= (self.position, self._since):
                continue
            before, notices, nonce = fields[1].split(b" ")
            missed = self._missed(int(before), int(notices))
            if missed or fields[2] == b"k":
                if entries:
                    news.append(entries)
                    entries = []
                news += missed
            if fields[2] == b"k":
                news += self._notice(number, fields[3].decode(), fields[5].decode())
            else:
                channel, frames = fields[3].decode(), fields[5::2]
                self.nonce = nonce
                entries += (
                    Entry(place, channel, frame)
                    for place, frame in enumerate(frames, number - len(frames) + 1)
                )
            self.position, self._since = number, since
        if entries:
            news.append(entries)
        return news

    def skip(self, place: Place) -> list[News | Renewed]:
        """The tail has lost what was before a place: go there."""
        news = self._missed(place.newest, place.notices)
        if place.epoch != self.epoch:
            self.epoch = place.epoch
            news.append(Renewed(place.epoch, place.newest))
        self._go(place)
        return news

    def _go(self, place: Place) -> None:
        self.position, self.noticed, self._since = place.newest, place.notices, place.since
        self.nonce = b""

    def _missed(self, newest: int, notices: int) -> list[News | Renewed]:
        news: list[News | Renewed] = []
        if newest > self.position:
            news.append(Skipped(newest))
            self.position = newest
        if notices > self.noticed:
            # This process stood still meanwhile. A subscriber that is closed without need returns.
            log.warning("notices in the channel log were missed; all subscribers are sent away")
            news.append(Notice(notices, self.position, "close", "**"))
            self.noticed = notices
        return news

    def _notice(self, number: int, kind: str, body: str) -> list[News | Renewed]:
        self.noticed += 1
        kinds: dict[str, NoticeKind] = {"close": "close", "count": "count"}
        if kind == "epoch":
            self.epoch = body
            return [Renewed(body, number)]
        if kind in kinds:
            return [Notice(self.noticed, self.position, kinds[kind], body)]
        return []  # of a later version
