"""One subscriber of channels: the events that it has missed, then those that come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from sseflask.channels.channel_feed import ChannelFeed, Selection
from sseflask.channels.event_frames import (
    EARLIEST,
    Cursor,
    Types,
    event_type,
    frame,
    gap_frames,
    is_last_frame,
)
from sseflask.counters.counts import COUNTS, LOCK, GapReason, Reason
from sseflask.defaults import RETRY_JITTER
from sseflask.store.api import History, HistoryQuery, MissingScope, StoreError
from sseflask.store.catch_up import CatchUp, Frame
from sseflask.store.names import Pattern, distinct
from sseflask.transport.detached.group import Group
from sseflask.transport.stream import reconnect_line

#: Events that are read from the store at once.
PAGE = 100

#: Characters of a client's last event id that a gap repeats, once for each name or pattern.
_PRESENTED = 100

#: The most seconds from the storing of an event until it is delivered in this process.
_TAIL_SECONDS = 10.0

#: A number that no event has.
_BEYOND = 2**63 - 1


class HistoryReader(Protocol):
    """The part of an `EventStore` that a subscription needs."""

    def history(self, query: HistoryQuery) -> History: ...


class Subscription(CatchUp[Selection]):
    """The events of some channels from a place in the store on.

    It enters the feed when it is first advanced. One that never is leaves nothing behind.

    Args:
        start: where a client without an id begins; kept as an attribute.
        presented: the client's last event id, or `EARLIEST`.
        opening: the first bytes of the stream, unless there is a gap.
        until: types of events; it ends after the first event of one of them.
    """

    def __init__(
        self,
        feed: ChannelFeed,
        reader: HistoryReader,
        patterns: Sequence[Pattern],
        start: Cursor,
        presented: str | None = None,
        opening: bytes = b"",
        until: Types = frozenset(),
        retry_jitter: int = RETRY_JITTER,
    ) -> None:
        super().__init__(feed.lock, Selection(distinct(patterns), until))
        self.start = start
        self._epoch, self._at = start.epoch, start.number
        self._channel_feed = feed
        self._reader = reader
        self._presented = presented
        self.may_join_at_once = presented is None
        self._opening = opening
        self._retry_jitter = retry_jitter
        self._closes = feed.closes
        self._closed = False
        self._unknown = False  # whether the place of the client can't be made out
        # Whether trimmed events are a gap: not those before the first event that `EARLIEST` gets.
        self._tells_trimmed = presented != EARLIEST

    @property
    def reason(self) -> Reason:
        return "closed" if self._closed else "done"

    def close_after_queue(self) -> None:
        """End the stream after what is in the queue. Called by the feed, which has left it."""
        self._closed = True
        self.wake()

    def join_at_once(self, chunked: bool, heartbeat: float) -> tuple[bytes, Group] | None:
        feed = self._channel_feed
        with self._lock:
            if (
                self._abandoned
                or self._feed is not None
                or self._presented is not None
                or self._at != feed.position
                or self._epoch != feed.epoch
                or feed.closed_since(self._closes, self.key.patterns)
            ):
                return None
            self._abandoned = True
            return self._opening, feed.join(self, chunked, heartbeat)

    # -- what comes next ---------------------------------------------------------------------------

    def _next_step(self) -> Callable[[], bytes] | None:
        if self._closed:
            return self._last_words
        if self._feed is None:
            return self._enter
        if self._unknown or self._epoch != self._channel_feed.epoch or self._at < self._base:
            return self._read_page
        if self._at > self._channel_feed.position:
            return self._wait_for_tail
        self._tells_trimmed = True
        return self._from_queue if self._queue else None

    def _enter(self) -> bytes:
        """Enter the feed, and find the place that the client has presented."""
        with self._lock:
            if self._channel_feed.closed_since(self._closes, self.key.patterns):
                self._closed = True
                return b""
            self._enter_feed(self._channel_feed)
            base, epoch = self._base, self._channel_feed.epoch
        if self._presented is None:
            return self._opening
        if self._presented == EARLIEST:
            self._epoch, self._at, self._presented = epoch, 0, None
            return self._opening
        self._count_resumed()
        self._presented = self._presented[:_PRESENTED]
        place = Cursor.parse(self._presented)
        if place is None or (
            place.epoch == epoch
            and place.number > base
            and place.number > self._history(place.number, "none").newest
        ):
            self._unknown = True
            return b""
        self._epoch, self._at = place.epoch, place.number
        return self._opening if place.epoch == epoch else b""

    def _wait_for_tail(self) -> bytes:
        """Wait for the delivery of an event that the client has from another process."""
        if not self._channel_feed.wait_for(self._at, _TAIL_SECONDS):
            raise StoreError("an event has not been delivered in time")
        return b""

    def _read_page(self) -> bytes:
        """Read the next events from the store, with a gap before them if some are missing.

        All events of another epoch are new to the client. If its place is unknown it gets only
        those that come from now on.
        """
        with self._lock:
            base, epoch = self._base, self._channel_feed.epoch
        reason: GapReason = "trimmed"
        if self._unknown:
            reason, history = "unknown", self._history(_BEYOND, "all")
        elif self._epoch != epoch:
            reason, history = "epoch", self._page(0, "all", base)
        else:
            missing: MissingScope = "trimmed" if self._tells_trimmed else "none"
            history = self._page(self._at, missing, base)
        with self._lock:
            if not epoch == history.epoch == self._channel_feed.epoch:
                return b""  # the store has been replaced meanwhile
            presented = self._presented or str(Cursor(self._epoch, self._at))
            if reason != "trimmed":
                self._epoch, self._at, self._unknown = epoch, 0, False
            if reason == "unknown":
                # Other processes may have stored events that are not delivered here yet.
                self._at = base = max(base, history.newest)
            gaps = b""
            if history.missing:
                gaps = gap_frames(reason, presented, history.missing, Cursor(self._epoch, self._at))
                self.events += len(history.missing)
                with LOCK:
                    COUNTS.gaps[reason] += len(history.missing)
            return gaps + self._advance(history, base)

    def _advance(self, history: History, base: int) -> bytes:
        """Give the events up to a base; those after it are in the queue."""
        entries, last = history.upto(base)
        epoch, until, given = self._epoch, self.key.until, self.events
        self._at = max(self._at, base if history.last >= history.newest else last)
        self._presented, self._tells_trimmed = None, True
        if until or entries is not history.entries:
            framed = [
                (each.number, frame(epoch, each, event_type(each.frame) in until))
                for each in entries
            ]
            body = self._encode(framed)
        else:
            if history.body is None:  # made once for all subscriptions with this answer
                history.body = b"".join(frame(epoch, entry) for entry in entries)
            body = history.body
            self.events += len(entries)
        self._count_replayed(self.events - given)
        return body

    def _encode(self, frames: Sequence[Frame]) -> bytes:
        if self.key.until:
            for count, (_, framed) in enumerate(frames, 1):
                if is_last_frame(framed):
                    self._end()
                    frames = frames[:count]
                    break
        self.events += len(frames)
        return b"".join(framed for _, framed in frames)

    def _last_words(self) -> bytes:
        """Give the last bytes of a closed subscription: its queue, and when to reconnect.

        One that is behind gets no events. Its client may come back for them, if it is let in.
        """
        frames = b""
        if self._feed and self._epoch == self._channel_feed.epoch and self._at >= self._base:
            frames = self._from_queue()
        if not self.ended:
            self._end()
            frames += reconnect_line(self._retry_jitter)
        return frames

    def _page(self, after: int, missing: MissingScope, base: int) -> History:
        """The next events, up to a base at least: perhaps as another subscription has read them."""
        query, feed = HistoryQuery(self.key.patterns, after, PAGE, missing), self._channel_feed
        with self._lock:
            history = feed.answers.get(query, feed.epoch, base)
        if history is None:
            history = self._reader.history(query)
            with self._lock:
                feed.answers.keep(query, history)
        return history

    def _history(self, after: int, missing: MissingScope) -> History:
        return self._reader.history(HistoryQuery(self.key.patterns, after, PAGE, missing))
