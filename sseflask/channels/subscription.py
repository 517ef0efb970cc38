"""One subscriber: what it missed, then what comes; nothing is lost or repeated in between."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, Protocol

from sseflask.channels.event_frames import (
    EARLIEST,
    Cursor,
    Gap,
    Types,
    event_type,
    frame,
    last_frame,
)
from sseflask.channels.hub import Hub
from sseflask.counters.counts import COUNTS, LOCK, GapReason, Reason
from sseflask.defaults import RETRY_JITTER
from sseflask.loop.callbacks import wait_for_event
from sseflask.store.api import Entry, History, HistoryQuery, Missing, MissingScope, StoreError
from sseflask.store.names import Pattern
from sseflask.store.unavailable import store_unavailable
from sseflask.transport.detached.group import Group
from sseflask.transport.source import Source
from sseflask.transport.stream import rotation_notice

__all__ = ["Subscription"]

#: Events read from the log at once.
PAGE = 100

#: Events and bytes a queue may hold; who falls behind further reads from the log again.
QUEUE, QUEUE_BYTES = 1000, 256 * 1024

#: Characters of what a client presents that are told back to it.
_PRESENTED = 100

#: Seconds for which a number may be in the log before this process's tail has come to it.
_TAIL_SECONDS = 10.0

#: A number that no event has.
_BEYOND = 2**63 - 1


class Reader(Protocol):
    """Reads what is stored."""

    def history(self, query: HistoryQuery) -> History:
        """Read some events; all that was stored before the call is in the answer.

        Blocks. Callers with equal queries may get the same answer. Raises `StoreError`.
        """


class Subscription(Source):
    """The events of some channels from a place in the log on.

    It enters the hub when it is first advanced, and not before: one that never is leaves nothing
    behind. Advanced by one greenlet or thread; `put`, `reread`, `shut` and `abandon` come from
    others.

    Args:
        hub: passes on what comes.
        reader: reads what was there before.
        patterns: the names and patterns; at least one.
        start: where a client begins that presents no id; kept as an attribute.
        presented: its last event id, or `EARLIEST`.
        opening: sent before everything else, where there is no gap.
        until: the types of events after the first of which it ends.
        retry_jitter: see `sseflask.transport.stream.Stream`.

    Attributes:
        closes: how often something had been closed when it was made, see `Hub`.
    """

    def __init__(
        self,
        hub: Hub,
        reader: Reader,
        patterns: Sequence[Pattern],
        start: Cursor,
        presented: str | None = None,
        opening: bytes = b"",
        until: Types = frozenset(),
        retry_jitter: int = RETRY_JITTER,
    ) -> None:
        # In one order, so that who wants the same is served together.
        self.patterns = tuple(sorted(set(patterns), key=str))
        self.start = start
        self.until = until
        self.closes = hub.closes
        self._hub = hub
        self._reader = reader
        self._presented = presented
        self._opening = opening
        self._retry_jitter = retry_jitter
        self._place = start
        self._entered = False
        self._abandoned = False
        self._ended = False
        self._shut = False
        # From the log up to here, from the queue after it. The hub's lock guards what follows.
        self._base = 0
        self._queue: deque[tuple[int, bytes]] = deque()
        self._queued = 0
        self._ends: dict[int, bytes] = {}
        self._changed: threading.Event | None = None  # made by the first who waits
        # Whether what the log has forgotten is worth a word: not to who asks for what is there.
        self._complete = True

    @property
    def ended(self) -> bool:
        """See `Source`."""
        return self._ended

    @property
    def reason(self) -> Reason:
        """See `Source`."""
        return "closed" if self._shut else "done"

    # -- the three ways to advance it ------------------------------------------------------------

    def frames(self) -> Iterator[bytes]:
        """See `Source`."""
        while True:
            frames = self._next()
            if frames is not None:
                yield frames
            elif self._abandoned:
                return
            else:
                self._wait(None)

    def get(self, timeout: float) -> tuple[bytes, bool] | None:
        """See `Source`."""
        deadline = time.monotonic() + timeout
        while (frames := self._next()) is None:
            if self._abandoned:
                raise StopIteration
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            self._wait(left)  # which may be woken by what turns out to be nothing new
        return frames, True

    def history(self) -> Iterator[bytes]:
        """See `Source`."""
        while (frames := self._next()) is not None:
            yield frames

    def join(self, chunked: bool, heartbeat: float) -> Group | None:
        """See `Source`."""
        with self._hub.lock:
            if not self._entered or self._abandoned or self._something_there():
                return None
            return self._hub.join(self, chunked, heartbeat)

    def abandon(self) -> None:
        """See `Source`."""
        with self._hub.lock:
            self._abandoned = True
            self._hub.leave(self)
            self._notify()

    # -- the hub, which holds its lock -----------------------------------------------------------

    def put(
        self,
        frames: Sequence[tuple[int, bytes]],
        position: int,
        ends: Mapping[int, bytes] | None = None,
    ) -> None:
        """Take what has come, up to a position; and what to give where one of them is the last."""
        self._queue.extend(frames)
        if ends is not None:
            self._ends.update(ends)
        self._queued += sum(len(framed) for _, framed in frames)
        if len(self._queue) > QUEUE or self._queued > QUEUE_BYTES:
            self._empty_queue()
            self._base = position
        self._notify()

    def reread(self) -> None:
        """Something is not as it was: go on from the log."""
        self._empty_queue()
        self._base = self._hub.position
        self._notify()

    def shut(self) -> None:
        """End the stream, after what is in the queue; the hub puts nothing more into it."""
        self._shut = True
        self._notify()

    def _empty_queue(self) -> None:
        self._queue.clear()
        self._queued = 0
        self._ends = {}

    def _notify(self) -> None:
        if self._changed is not None:
            self._changed.set()

    def _something_there(self) -> bool:
        hub, place = self._hub, self._place
        return bool(
            self._queue
            or self._shut
            or place.number < self._base
            or place.epoch != hub.epoch
            or place.number > hub.position
        )

    def _wait(self, timeout: float | None) -> None:
        """Block until there may be something, or for some seconds."""
        with self._hub.lock:
            if self._abandoned or self._something_there():
                return
            if self._changed is None:
                self._changed = threading.Event()
            changed = self._changed
            changed.clear()
        wait_for_event(changed, timeout)

    # -- what comes next -------------------------------------------------------------------------

    def _next(self) -> bytes | None:
        """The next frames, ``None`` when only new ones are left to come; blocks for the log."""
        if not self._entered:
            frames = self._enter()
            if frames:
                return frames
        while not self._abandoned:
            with self._hub.lock:
                if self._shut:
                    return self._last_words()
                place, base = self._place, self._base
                changed = place.epoch != self._hub.epoch
                ahead = not changed and place.number > self._hub.position
                if not changed and not ahead and place.number >= base:
                    self._complete = True  # from here on every event is one that it is to get
                    return self._from_queue() or None
            if ahead:
                if not self._hub.wait_for(place.number, _TAIL_SECONDS):
                    raise store_unavailable()
                continue
            frames = self._gap("epoch", str(place)) if changed else self._from_log(base)
            if frames:
                return frames
        return None

    def _enter(self) -> bytes:
        self._entered = True
        with self._hub.lock:
            self._hub.enter(self)
            base = self._base = self._hub.position
            epoch = self._hub.epoch
        if self._shut:
            return b""
        presented = self._presented
        if presented is None:
            return self._opening
        presented = self._presented = presented[:_PRESENTED]  # told back once for each pattern
        if presented == EARLIEST:
            self._place, self._complete, self._presented = Cursor(epoch, 0), False, None
            return self._opening
        with LOCK:
            COUNTS.streams["channel"].resumed += 1
        place = Cursor.parse(presented)
        if place is None:
            return self._gap("unknown", presented)
        if place.epoch != epoch:
            return self._gap("epoch", presented)
        if place.number > base and place.number > self._read(place.number, "none").newest:
            return self._gap("unknown", presented)
        self._place = place
        return self._opening

    def _gap(self, reason: Literal["epoch", "unknown"], presented: str) -> bytes:
        """Tell that nothing can be said about what was missed, and go on from what there is.

        Of another epoch's log everything is news to this client; with an id that can't be made
        out, only what comes from here.
        """
        with self._hub.lock:
            base, epoch = self._base, self._hub.epoch
        place = Cursor(epoch, 0)
        history = self._read(_BEYOND if reason == "unknown" else 0, "all")
        with self._hub.lock:
            if epoch != self._hub.epoch:
                return b""  # of another log by now, which is seen to at the next turn
            if reason == "unknown":
                # The tail may be behind what others have published by now.
                base = max(base, history.newest)
                place = Cursor(epoch, base)
            gaps = [self._told(reason, presented, end) for end in history.missing]
            self._count_gaps(reason, len(gaps))
            return Gap.frames(gaps, place) + self._advance(place, history, base)

    def _told(self, reason: GapReason, presented: str, end: Missing) -> Gap:
        epoch = self._hub.epoch
        oldest = None if end.oldest is None else Cursor(epoch, end.oldest)
        newest = None if end.newest is None else Cursor(epoch, end.newest)
        return Gap(reason, str(end.pattern), presented, oldest, newest)

    def _count_gaps(self, reason: GapReason, count: int) -> None:
        self.events += count
        with LOCK:
            COUNTS.gaps[reason] += count

    def _from_queue(self) -> bytes:
        place, queue, ends = self._place, self._queue, self._ends
        frames = []
        for number, framed in queue:
            if number > place.number:
                frames.append(ends.get(number, framed))
                if number in ends:
                    self._end()
                    break
        self.events += len(frames)
        if queue:
            self._place = Cursor(place.epoch, max(place.number, queue[-1][0]))
            self._empty_queue()
        return b"".join(frames)

    def _from_log(self, base: int) -> bytes:
        place = self._place
        history = self._read(place.number, "trimmed" if self._complete else "none")
        gap = b""
        with self._hub.lock:
            if place.epoch != self._hub.epoch:
                return b""  # as above
            if history.missing and self._complete:
                told = self._presented or str(place)
                ends = [self._told("trimmed", told, end) for end in history.missing]
                gap = Gap.frames(ends, place)
                self._count_gaps("trimmed", len(ends))
            return gap + self._advance(place, history, base)

    def _advance(self, place: Cursor, history: History, base: int) -> bytes:
        """The frames of what was read, as far as ``base``: from there on they are in the queue."""
        entries, last = history.upto(base)
        if self.until:
            for count, entry in enumerate(entries, 1):
                if event_type(entry.frame) in self.until:
                    return self._end_with(place.epoch, entries[:count])
        if history.last >= history.newest:
            last = base  # whatever the hub says, there is no more
        self._place = Cursor(place.epoch, max(place.number, last))
        self._presented, self._complete = None, True
        self._count_replayed(len(entries))
        if entries is not history.entries:
            return b"".join(frame(place.epoch, entry) for entry in entries)
        if history.body is None:  # made once for all that were given this
            history.body = b"".join(frame(place.epoch, entry) for entry in entries)
        return history.body

    def _count_replayed(self, count: int) -> None:
        self.events += count
        with LOCK:
            COUNTS.streams["channel"].replayed += count

    def _end_with(self, epoch: str, entries: Sequence[Entry]) -> bytes:
        *others, last = entries
        self._end()
        self._count_replayed(len(entries))
        return b"".join([*(frame(epoch, each) for each in others), last_frame(epoch, last)])

    def _last_words(self) -> bytes:
        """What a client still gets whose subscription was closed, and when to come back.

        One that is behind gets no more: it may come back for the rest, if it is let in.
        """
        place, hub = self._place, self._hub
        live = self._entered and place.epoch == hub.epoch and place.number >= self._base
        frames = self._from_queue() if live else b""
        if not self._ended:
            self._end()
            frames += rotation_notice(self._retry_jitter)
        return frames

    def _end(self) -> None:
        """Nothing follows what is given now."""
        self._ended = True
        self.abandon()

    def _read(self, after: int, missing: MissingScope) -> History:
        try:
            return self._reader.history(HistoryQuery(self.patterns, after, PAGE, missing))
        except StoreError as error:
            raise store_unavailable() from error
