"""The channels of one application: publish, subscribe, and what runs for them in each process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from sseflask.channels.channel_feed import ChannelFeed
from sseflask.channels.event_frames import Cursor, Types
from sseflask.channels.store_listener import StoreListener
from sseflask.channels.subscription import Subscription
from sseflask.counters.counts import COUNTS, LOCK, provide
from sseflask.defaults import RETRY_JITTER
from sseflask.store.api import Append, EventLimits, EventStore, KeyReused, StoreError
from sseflask.store.names import FIGURES, Pattern, is_own
from sseflask.store.open import PerProcess, is_on_server, open_event_store

#: Number of the service's own figures that are kept: a chart's first minute.
_FIGURES_KEPT = 60
_FIGURES = Pattern.parse(FIGURES)

#: Seconds for which an event is kept though its channel has too many: the other workers are given
#: it within milliseconds, unless something holds them up.
_YOUNG_SECONDS = 5.0

#: Seconds to wait for the store's position if the feed's own is good enough.
_SHORT_PATIENCE = 0.5


class _Process:
    """The store's connection and the feed of one process."""

    def __init__(self, store: EventStore) -> None:
        self.store = store
        self.feed = ChannelFeed()
        listener = StoreListener(self.feed)
        self._withdraw = [
            provide("behind", lambda: listener.behind),
            provide("figure_readers", lambda: self.feed.count(_FIGURES)),
        ]
        store.follow(listener)

    def close(self) -> None:
        for withdraw in self._withdraw:
            withdraw()
        self.store.close()

    def here(self) -> Cursor:
        """The place behind all events so far; only those delivered here if the store is busy."""
        here = self.feed.cursor
        if self.store.shared:
            # What others have stored may not have come to the feed yet.
            try:
                newest = self.store.position(_SHORT_PATIENCE).number
            except StoreError:
                return here
            return Cursor(here.epoch, max(here.number, newest))
        return here


class Ids(list[str]):
    """The ids of published events; ``repeated`` if they had been published before, by their key."""

    def __init__(self, ids: Iterable[str], repeated: bool) -> None:
        super().__init__(ids)
        self.repeated = repeated


class Channels:
    """Publishes and subscribes. Any thread or greenlet; nothing runs before the first use.

    Attributes:
        memory_checked: whether it is known if memory would do, for the processes that there are.
    """

    memory_checked = False

    def __init__(self, address: Callable[[], str], limits: EventLimits) -> None:
        self._address = address
        self._limits = replace(
            limits,
            events_of={FIGURES: min(_FIGURES_KEPT, limits.events)},
            young_seconds=_YOUNG_SECONDS,
        )
        self._per_process = PerProcess(self._open)

    def _open(self) -> _Process:
        return _Process(open_event_store(self._address(), self._limits))

    @property
    def on_server(self) -> bool:
        """Whether a Redis server keeps the events, for all machines."""
        return is_on_server(self._address())

    @property
    def store(self) -> EventStore:
        """The store of this process. Blocks until it has been opened, the first time."""
        return self._per_process.get().store

    def publish(
        self, channel: str, frames: Sequence[bytes], *, key: str | None = None, digest: bytes = b""
    ) -> Ids | KeyReused:
        """Store events of one channel, all or none, for all subscribers; see `Append`.

        Blocks until they are stored.

        Raises:
            StoreError: the store can't do it now; nothing is stored, unless it did not answer.
        """
        store = self.store
        began = time.monotonic()
        appended = store.append(Append(channel, tuple(frames), key, digest))
        if isinstance(appended, KeyReused):
            return appended
        if not appended.repeated and not is_own(channel):
            seconds = time.monotonic() - began
            with LOCK:
                COUNTS.published += len(frames)
                COUNTS.publish.add(seconds)
        numbers = range(appended.first, appended.last + 1)
        return Ids((f"{appended.epoch}-{number}" for number in numbers), appended.repeated)

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

        Blocks until the store has been opened, the first time.

        Args:
            last_event_id: where the client was, ``earliest``, or ``None`` if it does not say.
            since: where a client begins that does not say, as above; ``None`` for new events only.
            announce: tell a client that presents no id where it begins.

        Raises:
            StoreError: the store has never been open, and can't be opened now.
        """
        process = self._per_process.get()
        if not process.feed.epoch:
            process.store.position()
        presented = since if last_event_id is None else last_event_id
        begins = None
        if presented is None:
            begins = process.here()
        elif last_event_id is None:
            begins = Cursor.parse(presented)
        return Subscription(
            process.feed,
            process.store,
            patterns,
            begins or process.feed.cursor,
            presented,
            f"id: {begins}\n\n".encode() if announce and begins else b"",
            until,
            retry_jitter,
        )

    def position(self) -> str:
        """The id of a place behind all that has been published. Blocks; may raise `StoreError`."""
        return str(Cursor(*self.store.position()))

    def close(self) -> None:
        """Close the store in this process; the next use opens it again. Blocks for a short time."""
        self._per_process.close()
