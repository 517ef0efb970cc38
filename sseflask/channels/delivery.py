"""How what the log's thread finds comes to the hub of its process.

`sseflask.store.sqlite.event_thread.LogThread` says what each method is for: it calls them, in its
own thread.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

from sseflask.channels.hub import Hub
from sseflask.counters.counts import COUNTS
from sseflask.loop.callbacks import EventLoop
from sseflask.store.api import Entry
from sseflask.store.names import Pattern

__all__ = ["Direct", "ThroughLoop"]


class Direct:
    """Feeds a hub from the log's thread itself: where threads are threads."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def deliver(self, entries: Sequence[Entry]) -> None:
        self._hub.take_in(entries)

    def restarted(self, epoch: str, position: int) -> None:
        self._hub.restart(epoch, position)

    def skipped(self, _before: int, last: int) -> None:
        self._hub.skip(last)

    def closed(self, patterns: Sequence[Pattern]) -> None:
        self._hub.close(patterns)

    def count(self, pattern: Pattern, answer: Callable[[int], None]) -> None:
        answer(self._hub.count(pattern))


class ThroughLoop:
    """Feeds a hub from the event loop, and sends to those of its subscribers that are detached."""

    def __init__(self, hub: Hub) -> None:
        from sseflask.transport.detached.registry import DetachedStreams

        self._hub = hub
        self._detached = DetachedStreams.current()
        self._event_loop = EventLoop.current()
        self._arrived: deque[tuple[float, Sequence[Entry]] | Callable[[], None]] = deque()
        self._planned = False

    # The log's thread.

    def deliver(self, entries: Sequence[Entry]) -> None:
        self._arrive((time.monotonic(), entries))

    def restarted(self, epoch: str, position: int) -> None:
        self._arrive(lambda: self._detached.reconnect(self._hub.restart(epoch, position)))

    def skipped(self, _before: int, last: int) -> None:
        self._arrive(lambda: self._detached.reconnect(self._hub.skip(last)))

    def closed(self, patterns: Sequence[Pattern]) -> None:
        self._arrive(lambda: self._detached.close(self._hub.close(patterns)))

    def count(self, pattern: Pattern, answer: Callable[[int], None]) -> None:
        self._arrive(lambda: answer(self._hub.count(pattern)))

    def _arrive(self, what: tuple[float, Sequence[Entry]] | Callable[[], None]) -> None:
        self._event_loop.call_soon_threadsafe(self._plan, what)

    # The loop.

    def _plan(self, what: tuple[float, Sequence[Entry]] | Callable[[], None]) -> None:
        self._arrived.append(what)
        if not self._hub.epoch:
            self._pass_on()  # nobody is there yet, and somebody waits for the log to be open
        elif not self._planned:
            self._planned = True
            self._detached.jobs.submit(self._pass_on)

    def _pass_on(self) -> None:
        self._planned = False
        arrived = self._arrived
        while arrived:
            what = arrived.popleft()
            if callable(what):
                what()
                continue
            came, first = what
            entries = list(first)
            # What has come meanwhile is sent with it.
            while arrived and not callable(arrived[0]):
                entries += arrived.popleft()[1]  # type: ignore[index]  # looked at before
            batch = self._hub.take_in(entries)
            self._detached.send(batch)
            if batch:
                COUNTS.delivery.add(time.monotonic() - came, len(entries))
            if batch.ended:
                self._detached.finish(batch.ended)
