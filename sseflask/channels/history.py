"""The stored events of some channels, as a finite list for code."""

from __future__ import annotations

from dataclasses import dataclass

from sseflask.channels.event_frames import EARLIEST, Cursor
from sseflask.counters.counts import GapReason
from sseflask.store.api import Entry, EventStore, HistoryQuery, MissingScope, StoreError
from sseflask.store.names import Pattern
from sseflask.wire import Decoder

#: Events that are read from the store at once.
_PAGE = 100

#: How often the reading is begun if the store is replaced meanwhile.
_TRIES = 3


@dataclass(frozen=True, slots=True)
class ChannelEvent:
    """An event that was published.

    Args:
        channel: the name of its channel.
        id: its id, as `sseflask.SSE.publish` returned it and clients get it.
        event: its type, ``message`` if it was published without one.
        data: its data; text, as clients get it.
    """

    channel: str
    id: str
    event: str
    data: str


@dataclass(frozen=True, slots=True)
class ChannelHistory:
    """What `sseflask.SSE.history` has read.

    Args:
        events: in the order in which they were published.
        cursor: the place to go on from: ``after`` of the next call, ``since`` of a subscription, or
            a client's ``last_event_id``. Nothing is lost in between, and nothing comes twice.
        gap: why events may be missing between ``after`` and the first event; ``None`` if none are.
            ``trimmed``: the store no longer has them. ``epoch``: the cursor is of another epoch,
            and these are all events of this one. ``unknown``: the cursor can't be made out; there
            are no events, and ``cursor`` is behind all that are stored.
        more: whether there may be events after ``cursor`` already.
    """

    events: list[ChannelEvent]
    cursor: str
    gap: GapReason | None
    more: bool


def read_history(store: EventStore, pattern: Pattern, after: str, limit: int) -> ChannelHistory:
    """Read the events of some channels after an id or ``earliest``; see `sseflask.SSE.history`.

    Blocks. Raises `StoreError`.
    """
    cursor = Cursor.parse(after)
    for _ in range(_TRIES):
        here = Cursor(*store.position())
        events: list[ChannelEvent] = []
        gap: GapReason | None = None
        missing: MissingScope = "none"  # the client did not ask for what was trimmed before
        number = 0
        if after != EARLIEST:
            if cursor is None or (cursor.epoch == here.epoch and cursor.number > here.number):
                return ChannelHistory([], str(here), "unknown", more=False)
            if cursor.epoch != here.epoch:
                gap = "epoch"
            else:
                number, missing = cursor.number, "trimmed"
        while True:
            limit_now = min(limit - len(events), _PAGE)
            page = store.history(HistoryQuery((pattern,), number, limit_now, missing))
            if page.epoch != here.epoch:
                break  # the store has been replaced meanwhile
            if page.missing and gap is None:
                gap = "trimmed"
            events += (_event(here.epoch, entry) for entry in page.entries)
            number, missing = page.last, "trimmed"
            if len(events) >= limit or number >= page.newest:
                end = str(Cursor(here.epoch, number))
                return ChannelHistory(events, end, gap, more=number < page.newest)
    raise StoreError("the event store was replaced again and again while it was read")


def _event(epoch: str, entry: Entry) -> ChannelEvent:
    (event,) = Decoder().feed(entry.frame)
    return ChannelEvent(entry.channel, f"{epoch}-{entry.number}", event.event, event.data)
