"""Passes a store's events on to the subscribers of this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from sseflask.channels.channel_feed import ChannelFeed
from sseflask.counters.counts import COUNTS, Reason
from sseflask.loop.callbacks import cooperative
from sseflask.store.api import Entry
from sseflask.store.names import Pattern
from sseflask.transport.detached.group import Group


class StoreListener:
    """Updates the feed with what the store says. An `EventListener`, which describes the methods.

    Under gevent it is made and called in the main thread's event loop, and delivers in the greenlet
    that writes to detached streams. Without gevent nothing is detached, and it delivers at once.
    """

    def __init__(self, feed: ChannelFeed) -> None:
        self._feed = feed
        self._newest = 0
        self._waiting: list[Entry] | None = None  # a job will deliver what is in it by then
        self._streams = None
        if cooperative():
            from sseflask.transport.detached.registry import DetachedStreams

            self._streams = DetachedStreams.current()

    @property
    def behind(self) -> int:
        return max(0, self._newest - self._feed.position)

    def started(self, epoch: str, newest: int) -> None:
        self._newest = newest
        if not self._feed.epoch:
            self._feed.restart(epoch, newest)  # at once: a subscriber may wait for it
        else:
            self._do(self._end, "resync", self._feed.restart, epoch, newest)

    def skipped(self, last: int) -> None:
        self._do(self._end, "resync", self._feed.skip, last)

    def closed(self, pattern: Pattern) -> None:
        self._do(self._end, "closed", self._feed.close, pattern)

    def count(self, pattern: Pattern, answer: Callable[[int], None]) -> None:
        self._do(self._answer, pattern, answer)

    def events(self, entries: Sequence[Entry], since: float) -> None:
        """What comes before the job has begun is delivered with it."""
        self._newest = entries[-1].number
        if self._streams is None:
            self._feed.deliver(entries)
        elif self._waiting is not None:
            self._waiting += entries
        else:
            self._waiting = waiting = list(entries)
            self._streams.jobs.submit(self._deliver, waiting, since)

    def _do(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call a function after what has come so far, and before what comes later."""
        if self._streams is None:
            function(*arguments)
        else:
            self._waiting = None
            self._streams.jobs.submit(function, *arguments)

    # -- the greenlet that writes ------------------------------------------------------------------

    def _deliver(self, entries: list[Entry], since: float) -> None:
        if entries is self._waiting:
            self._waiting = None
        batch = self._feed.deliver(entries)
        if self._streams is not None and batch:
            self._streams.send(batch)
            COUNTS.delivery.add(time.monotonic() - since, len(entries))
            if batch.ended:
                self._streams.end(batch.ended, "done")

    def _end(self, reason: Reason, change: Callable[..., Sequence[Group]], *arguments: Any) -> None:
        """Change the feed, and end the streams that can't go on after that."""
        groups = change(*arguments)
        if self._streams is not None:
            self._streams.end(groups, reason)

    def _answer(self, pattern: Pattern, answer: Callable[[int], None]) -> None:
        answer(self._feed.count(pattern))
