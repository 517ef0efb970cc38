"""Where a process is in the one order of events and notices, and what is new to it. No I/O.

A backend reads the store's end, and gives what it has read to a `Tail`. The tail gives what is new,
in the store's order: all processes see each notice between the same two events.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

from sseflask.store.api import Entry, EventListener, count_upto
from sseflask.store.names import Pattern

log = logging.getLogger("sseflask")

NoticeKind = Literal["close", "count"]
"""To end the subscriptions of a name or pattern; to count them, and answer."""


@dataclass(frozen=True, slots=True)
class Notice:
    """A message to all processes that share a store. It is no event: no client gets it."""

    number: int  # its place among all notices, from 1 and without a hole
    after: int  # the highest number that an event had when the notice was stored
    kind: NoticeKind
    body: str  # the name or pattern that it is about


class Skipped(NamedTuple):
    """Events up to a number were trimmed before they were read."""

    last: int


class Page(list[Entry]):
    """Entries in order; if it is not ``complete`` there may be more behind the last."""

    def __init__(self, entries: Iterable[Entry], complete: bool) -> None:
        super().__init__(entries)
        self.complete = complete


News = Sequence[Entry] | Skipped | Notice


def give(
    listener: EventListener, news: News, since: float, answer: Callable[[int, int], None]
) -> None:
    """Give news to a listener.

    Args:
        listener: the one of this process.
        news: what is new since the last call.
        since: when that was seen, see `EventListener.events`.
        answer: takes the number of a notice, and how many subscriptions this process has.
    """
    if isinstance(news, Notice):
        pattern = Pattern.parse(news.body)
        if news.kind == "close":
            listener.closed(pattern)
        elif news.kind == "count":
            listener.count(pattern, partial(answer, news.number))
    elif isinstance(news, Skipped):
        listener.skipped(news.last)
    else:
        listener.events(news, since)


class Tail:
    """The place of one process. Not thread-safe."""

    def __init__(self) -> None:
        self.epoch = ""  # empty until the store has been open
        self.position = 0  # the number up to which events were news
        self.noticed = 0  # the number up to which notices were news
        self._notices: deque[Notice] = deque()

    def has_gone_back(self, epoch: str, newest: int) -> bool:
        """Whether an older copy of the store was put in its place: numbers would come again."""
        return epoch == self.epoch and newest < self.position

    def open(self, epoch: str, newest: int, last_notice: int) -> bool:
        """The store has been opened: take the highest numbers of its events and notices.

        Returns whether it is another store than before. Only what follows is news then.
        """
        other = epoch != self.epoch
        if other:
            self.epoch, self.position = epoch, newest
        if other or last_notice < self.noticed:
            self.noticed = last_notice
        self._notices.clear()
        return other

    def take_own(self, entries: Sequence[Entry], last_notice: int) -> bool:
        """Take consecutive events that this process has stored itself, without reading them.

        ``last_notice`` is the highest number of a notice when they were stored. Returns whether the
        events are the next news; if not, read the store's end.
        """
        if entries[0].number != self.position + 1 or last_notice != self.noticed:
            return False
        self.position = entries[-1].number
        return True

    def take_notices(self, notices: Sequence[Notice], last_notice: int) -> Sequence[News]:
        """Take those after `noticed`, before the events after `position` are read."""
        self._notices = deque(notices)
        first = notices[0].number if notices else last_notice + 1
        if first > self.noticed + 1:
            # This process stood still meanwhile. A subscriber that is closed without need returns.
            log.warning("notices in the event store were missed; all subscriptions are closed")
            self._notices.appendleft(Notice(first - 1, self.position, "close", "**"))
        return self._due(self.position)

    def take_page(self, page: Page, newest: int) -> Sequence[News]:
        """Take the first events after `position`; numbers that the page lacks were trimmed.

        ``newest`` is the highest number that was known before `take_notices`. Events above it are
        left for later, as there may be notices before them that have not been read yet.
        """
        before, entries = self.position, page[: count_upto(page, newest)]
        if page.complete or len(entries) < len(page):
            self.position = newest
        else:
            self.position = page[-1].number
        news: list[News] = []
        if self.position - before > len(entries):
            news.append(Skipped(self.position))
        for notice in self._due(self.position):
            there = count_upto(entries, notice.after)
            if there:
                news.append(entries[:there])
                entries = entries[there:]
            news.append(notice)
        if entries:
            news.append(entries)
        return news

    def _due(self, position: int) -> list[Notice]:
        """Take out the notices that were stored before the events after a position."""
        due: list[Notice] = []
        while self._notices and self._notices[0].after <= position:
            notice = self._notices.popleft()
            self.noticed = notice.number
            due.append(notice)
        return due
