"""The channels of one application: publish, subscribe, and what runs for them in each process."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from sseflask.channels.delivery import Direct, ThroughLoop
from sseflask.channels.event_frames import Cursor, Types
from sseflask.channels.history import ChannelHistory, read_history
from sseflask.channels.hub import Hub
from sseflask.channels.subscription import Subscription
from sseflask.counters.counts import COUNTS, LOCK
from sseflask.counters.gauges import provide
from sseflask.defaults import MEMORY, RETRY_JITTER
from sseflask.loop.callbacks import Done, cooperative
from sseflask.store.api import (
    Append,
    Appended,
    Extent,
    History,
    HistoryQuery,
    KeyReused,
    Log,
    StoreError,
)
from sseflask.store.durability import Durability, durability_of
from sseflask.store.names import FIGURES, Pattern, is_own
from sseflask.store.process import SHORT_PATIENCE, PerProcess, Running
from sseflask.store.sqlite.event_thread import LogThread
from sseflask.store.sqlite.events import SqliteLog
from sseflask.store.sqlite.wakeup import WakeupSocket

__all__ = ["Channels"]

log = logging.getLogger("sseflask")

#: Of the service's own figures so many are kept: a chart's first minute, and no room of others.
_FIGURES_KEPT = 60
_FIGURES = Pattern.parse(FIGURES)

#: Seconds for which an event is kept though its channel has too many: the other workers' tails come
#: to it in milliseconds, unless something holds them up.
_YOUNG_SECONDS = 5.0

#: Seconds that other processes have for their answer, and the longest pause between two looks at
#: what has been answered.
_ANSWER_SECONDS, _PAUSE = 1.0, 0.05


class _Running(Running[Log]):
    """The log's thread of this process, and the hub it feeds."""

    def __init__(self, make: Callable[[], Log], path: str | None) -> None:
        self.hub = Hub()
        feed = ThroughLoop(self.hub) if cooperative() else Direct(self.hub)
        self._wakeup = WakeupSocket(path)
        self.thread = LogThread(
            make,
            feed.deliver,
            feed.restarted,
            feed.skipped,
            feed.closed,
            feed.count,
            self._wakeup,
        )
        self._withdraw = [
            provide("behind", lambda: max(0, self.thread.tail - self.hub.position)),
            provide("watchers", lambda: self.hub.count(_FIGURES)),
        ]
        super().__init__(self.thread)

    def _before_end(self) -> None:
        for withdraw in self._withdraw:
            withdraw()

    def now(self) -> Cursor:
        """Behind everything that has been published, by whomever; as far as can be said shortly."""
        here = self.hub.cursor
        if self._wakeup.has_others:
            with contextlib.suppress(StoreError):
                # What others have stored may not have come to the hub yet.
                _, newest = self.wait(self.thread.newest, SHORT_PATIENCE)
                return Cursor(here.epoch, max(here.number, newest))
        return here

    def place(self) -> Cursor:
        """Behind everything that has been published, by whomever; raises as `call` does."""
        return Cursor(*self.wait(self.thread.newest))

    def history(self, query: HistoryQuery) -> History:
        """See `LogThread.history`; raises as `call` does."""
        history: History = self.wait(lambda done: self.thread.history(query, done))
        return history

    def append(self, append: Append) -> tuple[Appended | KeyReused, str]:
        """What became of it, and the epoch of its numbers."""

        def start(done: Done) -> None:
            self.thread.append(
                append, lambda result, error: done((result, self.thread.epoch), error)
            )

        result: tuple[Appended | KeyReused, str] = self.wait(start)
        return result

    def close_subscriptions(self, patterns: Iterable[Pattern]) -> None:
        """Have all processes end those that have one of these; raises as `call` does."""
        bodies = [str(pattern) for pattern in patterns]
        self.wait(lambda done: self.thread.notify("close", bodies, done))

    def count(self, pattern: Pattern) -> int:
        """Ask all processes for how many that would end; raises as `call` does."""
        bodies = [str(pattern)]
        notice, asked = self.wait(lambda done: self.thread.notify("count", bodies, done))
        until, pause = time.monotonic() + _ANSWER_SECONDS, 0.001

        def look(log: Log) -> tuple[dict[str, int], set[str]]:
            answers = log.answers(notice)
            if answers.keys() >= asked:
                return answers, set()
            return answers, {self._wakeup.name, *self._wakeup.wake_others()}

        while True:
            answers, there = self.call(look)
            if not (asked & there) - answers.keys() or time.monotonic() >= until:
                break
            time.sleep(pause)  # gevent's, where that has replaced it
            pause = min(2 * pause, _PAUSE)
        self.thread.submit(lambda log: log.forget_answers(notice), _nobody_waits)
        return sum(answers.values())


def _nobody_waits(_result: object, error: Exception | None) -> None:
    if error is not None:
        log.warning("answers in the channel log could not be removed: %s", error)


class Ids(list[str]):
    """The ids of published events.

    Attributes:
        repeated: they had been published before, with the same key.
    """

    def __init__(self, ids: Iterable[str], repeated: bool) -> None:
        super().__init__(ids)
        self.repeated = repeated


class Channels:
    """Publishes and subscribes. Any thread or greenlet; nothing runs before the first use.

    Args:
        path: gives the log's file at the first use; ``":memory:"`` for a log of this process.
        keep: how many events of a channel are kept at least.
        seconds: the age at which events are forgotten.
        most: bytes that the log's file may have.
    """

    def __init__(self, path: Callable[[], str], *, keep: int, seconds: float, most: int) -> None:
        self._path = path
        self._keep = keep
        self._seconds = seconds
        self._most = most
        self._running = PerProcess(self._run)

    def publish(
        self, channel: str, frames: Sequence[bytes], *, key: str | None = None, digest: bytes = b""
    ) -> Ids | KeyReused:
        """Store events of one channel, all or none, and have them delivered.

        Blocks until they are stored.

        Args:
            channel: a checked name.
            frames: what `sseflask.channels.event_frames.stored` gave for each; at least one.
            key: makes a repetition a no-op; scoped by the caller.
            digest: stands for the content.

        Returns:
            their ids, or `KeyReused` where the key belongs to other content.

        Raises:
            StoreError: the store can't do it now; nothing is stored, unless it did not answer.
        """
        running = self._running.get()
        began = time.monotonic()
        done, epoch = running.append(Append(channel, tuple(frames), key, digest))
        if isinstance(done, KeyReused):
            return done
        if not done.repeated and not is_own(channel):
            seconds = time.monotonic() - began
            with LOCK:
                COUNTS.published += len(frames)
                COUNTS.publish.add(seconds)
        return Ids((f"{epoch}-{n}" for n in range(done.first, done.last + 1)), done.repeated)

    def subscribe(
        self,
        patterns: Sequence[Pattern],
        last_event_id: str | None,
        *,
        since: str | None = None,
        until: Types = frozenset(),
        announce: bool = False,
        retry_jitter: int = RETRY_JITTER,
    ) -> Subscription:
        """Begin a subscription; one that is never advanced leaves nothing behind.

        Blocks until the log has been opened, the first time.

        Args:
            patterns: names and patterns.
            last_event_id: where the client was, ``earliest``, or ``None`` if it does not say.
            since: where such a client begins, as above; ``None`` for here.
            until: see `Subscription`.
            announce: tell a client that presents no id where it begins.
            retry_jitter: see `Subscription`.

        Raises:
            StoreError: the log has never been open, and can't be opened now.
        """
        running = self._open()
        presented = since if last_event_id is None else last_event_id
        begins = None
        if presented is None:
            begins = running.now()
        elif last_event_id is None:
            begins = Cursor.parse(presented)
        return Subscription(
            running.hub,
            running,
            patterns,
            begins or running.hub.cursor,
            presented,
            f"id: {begins}\n\n".encode() if announce and begins else b"",
            until,
            retry_jitter,
        )

    def position(self) -> str:
        """The id of a place behind all that has been published. Blocks; may raise `StoreError`."""
        return str(self._running.get().place())

    def history(self, pattern: Pattern, after: str, limit: int) -> ChannelHistory:
        """See `read_history`."""
        return read_history(self._running.get(), pattern, after, limit)

    def close_subscriptions(self, patterns: Iterable[Pattern]) -> None:
        """Have all processes end the subscriptions that have one of these, or only its channels.

        Blocks until that is stored. May raise `StoreError`.
        """
        self._running.get().close_subscriptions(patterns)

    def count(self, pattern: Pattern) -> int:
        """How many subscriptions that would end, in all processes that answer in time.

        Blocks for their answers. May raise `StoreError`.
        """
        return self._running.get().count(pattern)

    def _open(self) -> _Running:
        running = self._running.get()
        if not running.hub.epoch:
            running.call(lambda _log: None)
        return running

    def health(self) -> Literal["available", "unavailable", "busy"]:
        """See `PerProcess.health`."""
        return self._running.get().health()

    def extent(self) -> Extent:
        """How much the log holds. Blocks for half a second at most.

        Raises:
            StoreError: it does not say so at once.
        """
        extent: Extent = self._running.get().call(lambda log: log.extent(), SHORT_PATIENCE)
        return extent

    def durability(self) -> Durability:
        """For how long history is there."""
        return durability_of(self._path())

    def close(self) -> None:
        """End what runs for it in this process; the next use starts it again. Blocks shortly."""
        self._running.close()

    def _run(self) -> _Running:
        path = self._path()
        return _Running(
            lambda: SqliteLog(
                path,
                keep=self._keep,
                seconds=self._seconds,
                young=_YOUNG_SECONDS,
                most=self._most,
                few={FIGURES: min(_FIGURES_KEPT, self._keep)},
            ),
            None if path == MEMORY else path,
        )
