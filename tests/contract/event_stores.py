"""The backends of the event store, and listeners that record what they are given.

A backend is a name and a function: each call of it makes a place where nothing is stored yet.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sseflask.store.api import Append, Appended, Entry, EventLimits, EventStore, HistoryQuery
from sseflask.store.names import Pattern
from sseflask.store.open import open_event_store
from tests import memory, redis_server

DAY = 86_400.0

#: Seconds that another process's listener may take: far more than it needs.
_SECONDS = 30.0


@dataclass(frozen=True)
class Place:
    """Where stores are.

    Args:
        address: what `open_event_store` takes.
        shared: whether several stores use it at the same time, and one after the other.
    """

    address: str
    shared: bool


Places = Callable[[], AbstractContextManager[Place]]


@contextmanager
def _file() -> Iterator[Place]:
    with memory.directory() as directory:
        yield Place(str(Path(directory, "new", "store.db")), shared=True)


@contextmanager
def _memory() -> Iterator[Place]:
    yield Place(":memory:", shared=False)


@contextmanager
def _server(kind: str) -> Iterator[Place]:
    yield Place(redis_server.shared(kind).place(), shared=True)


BACKENDS: Mapping[str, Places] = {
    "sqlite": _file,
    "sqlite in memory": _memory,
    **{kind: partial(_server, kind) for kind in redis_server.programs()},
}


class Listener:
    """Records all that it is given.

    Attributes:
        started_at: the epochs and numbers at which it began.
        order: the numbers of events, closed patterns as text, and ``("skipped", number)``.
        entries: the events.
        subscriptions: what it answers to counts.
    """

    def __init__(self) -> None:
        self.started_at: list[tuple[str, int]] = []
        self.order: list[int | str | tuple[str, int]] = []
        self.entries: list[Entry] = []
        self.subscriptions = 0
        self._changed = threading.Condition()

    def started(self, epoch: str, newest: int) -> None:
        self.started_at.append((epoch, newest))

    def events(self, entries: Sequence[Entry], since: float) -> None:
        assert entries
        assert since <= time.monotonic()
        with self._changed:
            self.entries += entries
            self.order += (entry.number for entry in entries)
            self._changed.notify_all()

    def skipped(self, last: int) -> None:
        with self._changed:
            self.order.append(("skipped", last))
            self._changed.notify_all()

    def closed(self, pattern: Pattern) -> None:
        with self._changed:
            self.order.append(str(pattern))
            self._changed.notify_all()

    def count(self, pattern: Pattern, answer: Callable[[int], None]) -> None:
        assert str(pattern)
        answer(self.subscriptions)

    def wait_for(self, last: int | str) -> None:
        """Wait until it has been given something, or `lost` was called."""
        with self._changed:
            assert self._changed.wait_for(
                lambda: last in self.order or ("skipped", last) in self.order, _SECONDS
            ), f"no {last} in {self.order[-20:]}"


@contextmanager
def opened(
    place: Place, *, keep: int = 1000, listener: Callable[[], Listener] = Listener
) -> Iterator[tuple[EventStore, Listener]]:
    """A store as a process has it."""
    store, own = open_event_store(place.address, EventLimits(keep, DAY)), listener()
    store.follow(own)
    try:
        yield store, own
    finally:
        store.close()


def query(*texts: str, after: int = 0, limit: int = 100, **missing: object) -> HistoryQuery:
    return HistoryQuery(tuple(map(Pattern.parse, texts)), after, limit, **missing)  # type: ignore[arg-type]  # one of three words


def put(store: EventStore, channel: str, *frames: bytes, key: str | None = None) -> Appended:
    result = store.append(Append(channel, frames, key, b"".join(frames)))
    assert isinstance(result, Appended)
    return result


def read(store: EventStore, asked: HistoryQuery) -> list[Entry]:
    """All events of a query, in as many pages as it takes."""
    found: list[Entry] = []
    after = asked.after
    while True:
        page = store.history(HistoryQuery(asked.patterns, after, asked.limit, "none"))
        assert len(page.entries) <= asked.limit
        found += page.entries
        if page.last >= page.newest:
            return found
        assert page.last > after, "no progress"
        after = page.last


def numbers(entries: Sequence[Entry]) -> list[int]:
    return [entry.number for entry in entries]
