"""Databases of events for tests: opened on a clock that tests put forward, with ways to use them.

They are read as the store's thread does, but at once.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock

from sseflask.channels.channels import Channels
from sseflask.store.api import (
    Append,
    Appended,
    Entry,
    EventLimits,
    Extent,
    History,
    HistoryQuery,
    Missing,
    MissingScope,
)
from sseflask.store.names import Pattern
from sseflask.store.sqlite import event_history, event_tables, pattern_channels
from sseflask.store.sqlite.event_database import EventDatabase
from sseflask.store.sqlite.event_store import SqliteEventStore
from sseflask.store.sqlite.file import SqliteFile
from tests.clock import Clock

HOUR, DAY = 3600.0, 86_400.0


class OneTable(SqliteFile):
    """A file with a table of texts, to which nothing else is done."""

    def _prepare(self, database: sqlite3.Connection) -> None:
        database.execute("CREATE TABLE IF NOT EXISTS texts (text)")

    def trim(self) -> int:
        return 0

    def extent(self) -> Extent:
        return Extent(0, 0.0)


#: Where a database is: a file, or in memory, for one connection alone.
Place = Path | None


def database_at(
    place: Place, *, keep: int = 100, seconds: float = DAY, clock: Callable[[], float] = time.time
) -> EventDatabase:
    """A database that is not open yet."""
    return EventDatabase(str(place or ":memory:"), EventLimits(keep, seconds), clock)


@contextmanager
def opened(
    place: Place = None,
    *,
    keep: int = 100,
    seconds: float = DAY,
    clock: Callable[[], float] | None = None,
) -> Iterator[EventDatabase]:
    database = database_at(place, keep=keep, seconds=seconds, clock=clock or Clock())
    database.open()
    try:
        yield database
    finally:
        database.close()


def patterns(*texts: str) -> list[Pattern]:
    return [Pattern.parse(text) for text in texts]


def put(database: EventDatabase, channel: str, *frames: bytes, key: str | None = None) -> Appended:
    (result,) = database.append([Append(channel, frames, key, b"".join(frames))])
    assert isinstance(result, Appended)
    return result


def everything(database: EventDatabase) -> list[Entry]:
    return database.since(0, 1_000_000)


def history(database: EventDatabase, query: HistoryQuery) -> History:
    """What the thread does, without anything else between the steps."""
    steps = database.history(query)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: History = end.value
            return result


def read(
    database: EventDatabase,
    asked: Sequence[Pattern],
    after: int,
    upto: int,
    limit: int,
    *,
    page: int = 10**6,
) -> list[Entry]:
    """As many events as there are, in as many pages as it takes, of ``page`` events at most."""
    found = list[Entry]()
    while len(found) < limit:
        query = HistoryQuery(tuple(asked), after, min(page, limit - len(found)), "none")
        answer = history(database, query)
        entries, last = answer.upto(upto)
        assert all(after < entry.number <= last for entry in entries)
        found += entries
        if last >= min(upto, answer.newest):
            return found
        assert last > after, "no progress"
        after = last
    return found


def missing(database: EventDatabase, asked: Sequence[Pattern], after: int) -> list[Missing]:
    """What is missing after a number; below 0 the ends of all patterns."""
    scope: MissingScope = "all" if after < 0 else "trimmed"
    return history(database, HistoryQuery(tuple(asked), max(0, after), 1, scope)).missing


@contextmanager
def small_steps(*, many: int = 2) -> Iterator[None]:
    """Let databases read in steps of one or two, so that few events take every path.

    Args:
        many: the channels of a pattern that means more are not listed.
    """
    with ExitStack() as stack:
        for module, bounds in (
            (event_history, {"_SCAN": 2, "_SCANS": 2, "MANY": many}),
            (event_history, {"_FEW": 2, "_CHANNELS": 1, "_WITH_EVENTS": 1}),
            (pattern_channels, {"_NAMES": 1, "_PATTERNS": 3, "MANY": many}),
        ):
            for name, bound in bounds.items():
                stack.enter_context(mock.patch.object(module, name, bound))
        yield


def remember_empty_channels(amount: int) -> mock._patch[int]:
    """Let databases remember this many empty channels."""
    return mock.patch.object(event_tables, "_EMPTY_CHANNELS", amount)


def store_of(channels: Channels) -> SqliteEventStore:
    """The store of some channels in this process."""
    store = channels._per_process.get().store
    assert isinstance(store, SqliteEventStore)
    return store
