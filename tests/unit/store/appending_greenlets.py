"""Thousands of greenlets that append to a store. To be imported once gevent has patched."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import gevent
from gevent import monkey

from sseflask.store.api import Append, Appended, Entry, EventStore
from sseflask.store.names import Pattern

native_ident = monkey.get_original("_thread", "get_ident")


class Listener:
    """Collects what it is given, in the event loop."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.closes: list[Pattern] = []
        self._threads: set[int] = set()

    @property
    def in_the_loop(self) -> bool:
        """Whether it was called in the calling thread alone."""
        return self._threads == {native_ident()}

    def events(self, entries: Sequence[Entry], since: float) -> None:
        assert since <= time.monotonic()
        self.entries.extend(entries)
        self._threads.add(native_ident())

    def started(self, epoch: str, newest: int) -> None:
        assert epoch
        assert newest == 0
        self._threads.add(native_ident())

    def skipped(self, last: int) -> None:
        raise AssertionError(f"nothing was trimmed before {last}")

    def closed(self, pattern: Pattern) -> None:
        self.closes.append(pattern)
        self._threads.add(native_ident())

    def count(self, pattern: Pattern, answer: Callable[[int], None]) -> None:
        answer(len(str(pattern)))


def put(store: EventStore, listener: Listener, index: int) -> Appended:
    result = store.append(Append("a", (b"%d" % index,)))
    assert isinstance(result, Appended)
    # In the loop, and before the greenlet goes on.
    assert len(listener.entries) >= result.last
    return result


def put_all(store: EventStore, listener: Listener, amount: int) -> bool:
    """Append one event in each of some greenlets; say whether all is stored in their order."""
    greenlets = [gevent.spawn(put, store, listener, index) for index in range(amount)]
    gevent.joinall(greenlets, raise_error=True)
    results = [greenlet.value for greenlet in greenlets]
    return results == [Appended(n, n) for n in range(1, amount + 1)] and [
        entry.frame for entry in listener.entries
    ] == [b"%d" % index for index in range(amount)]
