"""Gives the news of the tail to the listener of this process, in order and each once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from sseflask.loop.callbacks import Done, call_guarded
from sseflask.store.api import Entry, EventListener
from sseflask.store.redis.event_tail import EventTail, Place, Renewed
from sseflask.store.tail import News, give

_tell = partial(call_guarded, "what listens to the channel log")

Answer = Callable[[int, int], None]
"""Takes the number of a notice, and how many subscriptions this process has."""


class EventNews:
    """The listener and the tail of one process.

    Called by a store's greenlets in the main loop, or its threads; what is called does no I/O.
    """

    def __init__(self, listener: EventListener, tail: EventTail, answer: Answer) -> None:
        self._listener = listener
        self._tail = tail
        self._answer = answer
        self._lock = threading.RLock()  # of the tail; held while the listener is called
        self._waiting: list[tuple[Place, Done]] = []

    def open(self, place: Place) -> None:
        """The server has been looked at: begin there, if it has another store than before."""
        with self._lock:
            if self._tail.open(place):
                _tell(self._listener.started, place.epoch, place.newest)
                self._go_on()

    def take(self, turns: int, rows: Sequence[Any]) -> None:
        """Give what is new in entries of the tail.

        Args:
            turns: of the tail, as the entries were asked for. If there are more since, the entries
                belong to another store, or some before them were not asked for: they are dropped.
        """
        with self._lock:
            if turns == self._tail.turns:
                self._give(self._tail.take(rows))

    def take_own(self, before: Place, last: int, nonce: str, entries: Sequence[Entry]) -> None:
        """Give events that this process has stored, if they are the next; see `EventTail`."""
        with self._lock:
            if entries and self._tail.take_own(before, last, nonce.encode()):
                _tell(self._listener.events, entries, time.monotonic())
                self._go_on()

    def skip(self, turns: int, place: Place) -> None:
        """The tail has lost what was before a place, if there are no more turns since."""
        with self._lock:
            if turns == self._tail.turns and place.generation == self._tail.generation:
                self._give(self._tail.skip(place))

    def has(self, place: Place) -> bool:
        """Whether everything up to a place has been given, or never will be."""
        with self._lock:
            return self._tail.has(place)

    def when_at(self, place: Place, done: Done) -> None:
        """Call something once everything up to a place has been given, or never will be."""
        with self._lock:
            if not self._tail.has(place):
                self._waiting.append((place, done))
                return
        done(None, None)

    def _give(self, news: Iterable[News | Renewed]) -> None:
        for each in news:
            if isinstance(each, Renewed):
                _tell(self._listener.started, each.epoch, each.newest)
            else:
                _tell(give, self._listener, each, time.monotonic(), self._answer)
        self._go_on()

    def _go_on(self) -> None:
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        for place, done in waiting:
            if self._tail.has(place):
                done(None, None)
            else:
                self._waiting.append((place, done))
