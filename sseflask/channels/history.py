"""What a channel has been given so far, as a finite list: for code, not for a stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from sseflask.channels.event_frames import EARLIEST, Cursor
from sseflask.counters.counts import GapReason
from sseflask.store.api import Entry, History, HistoryQuery, MissingScope, Position, StoreError
from sseflask.store.names import Pattern
from sseflask.wire import Decoder

__all__ = ["ChannelEvent", "ChannelHistory", "read_history"]

#: Events read from the log at once.
_PAGE = 100

#: How often it is read again when it is replaced meanwhile.
_TRIES = 3


@dataclass(frozen=True, slots=True)
class ChannelEvent:
    """An event that was published.

    Args:
        channel: to which channel.
        id: its id, as `sseflask.SSE.publish` returned it and clients see it.
        event: its type, ``message`` where it has none.
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
        cursor: from where to go on: as ``after`` of the next call, as ``since`` of a subscription,
            or as a client's ``last_event_id``. Nothing is lost in between, and nothing comes twice.
        gap: why there may have been more, between ``after`` and the first event: the log has
            forgotten it (``trimmed``), the cursor is another log's (``epoch``: these are all events
            of this one), or it can't be made out (``unknown``: there are no events, and ``cursor``
            is behind all that there is). ``None`` where nothing is missing.
        more: whether there may be more behind ``cursor`` already.
    """

    events: list[ChannelEvent]
    cursor: str
    gap: GapReason | None
    more: bool


class Reader(Protocol):
    """Reads the log; its methods block, and raise `StoreError` when the store can't do it now."""

    def position(self) -> Position:
        """See `EventStore`."""

    def history(self, query: HistoryQuery) -> History:
        """See `sseflask.channels.subscription.Reader`."""


def read_history(reader: Reader, pattern: Pattern, after: str, limit: int) -> ChannelHistory:
    """Read what the channels of a pattern have been given after some place. Blocks.

    What was published before the call is in it, by whichever process.

    Args:
        reader: reads the log.
        pattern: a name or pattern.
        after: an id, or ``earliest``.
        limit: how many events at most.

    Raises:
        StoreError: the log can't be read now.
    """
    for _ in range(_TRIES):
        here = Cursor(*reader.position())
        history = _read(reader, here, pattern, after, limit)
        if history is not None:
            return history
    raise StoreError("the channel log was replaced again and again while it was read")


def _read(
    reader: Reader, here: Cursor, pattern: Pattern, after: str, limit: int
) -> ChannelHistory | None:
    """Read one store; ``None`` if it was replaced meanwhile."""
    missing: MissingScope = "trimmed"
    gap: GapReason | None = None
    cursor = Cursor(here.epoch, 0) if after == EARLIEST else Cursor.parse(after)
    if cursor is None or (cursor.epoch == here.epoch and cursor.number > here.number):
        return ChannelHistory([], str(here), "unknown", more=False)
    number = cursor.number
    if cursor.epoch != here.epoch:
        number, gap = 0, "epoch"
    if gap or after == EARLIEST:
        missing = "none"  # what is forgotten was not asked for
    events: list[ChannelEvent] = []
    while True:
        query = HistoryQuery((pattern,), number, min(limit - len(events), _PAGE), missing)
        page = reader.history(query)
        if page.epoch != here.epoch:
            return None
        if page.missing and gap is None:
            gap = "trimmed"
        events += (_event(here.epoch, entry) for entry in page.entries)
        number, missing = page.last, "trimmed"
        if len(events) >= limit or number >= page.newest:
            return ChannelHistory(
                events, str(Cursor(here.epoch, number)), gap, more=number < page.newest
            )


def _event(epoch: str, entry: Entry) -> ChannelEvent:
    (event,) = Decoder().feed(entry.frame)
    return ChannelEvent(entry.channel, f"{epoch}-{entry.number}", event.event, event.data)
