"""The events of channels as bytes: as they are stored, as clients get them, and gaps.

No I/O.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from sseflask.counters.counts import GapReason
from sseflask.errors import EventError
from sseflask.event import MOST_RETRY, Event
from sseflask.store.api import Entry, Missing
from sseflask.wire import encode

#: Types of events that only the server sends.
RESERVED = ("gap", "failure")

#: A cursor that is no id: the place before the first stored event.
EARLIEST = "earliest"

_ID = re.compile(r"([a-z0-9]{1,32})-(0|[1-9][0-9]{0,17})(\.end)?\Z", re.ASCII)

Types = frozenset[bytes]
"""Types of events, as they are in stored events."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in the order of all events; its text is the id of the event before it."""

    epoch: str
    number: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.number}"

    @classmethod
    def parse(cls, text: str) -> Cursor | None:
        """Read an id, also of an event that has ended a stream; ``None`` if it is no id."""
        found = _ID.match(text)
        return cls(found[1], int(found[2])) if found else None


def has_ended(id: str) -> bool:
    """Whether an id belongs to an event that has ended its stream."""
    found = _ID.match(id)
    return found is not None and found[3] is not None


def check_types(types: str | Iterable[str]) -> Types:
    """Read types of events; raises ValueError for one that no event can have, and for none."""
    several = [types] if isinstance(types, str) else list(types)
    for type in several:
        if not isinstance(type, str) or not type or "\n" in type or "\r" in type:
            raise ValueError(f"{type!r:.200} is no event type: one is a text of one line")
        if type in RESERVED:
            raise ValueError(
                f"events of the type {type!r} are the server's own and end no subscription: name "
                "the type of an event that you publish"
            )
    if not several:
        raise ValueError("name at least one event type")
    return frozenset(type.encode() for type in several)


def event_type(stored: bytes) -> bytes:
    """The type of a stored event, as subscribers get it."""
    start = stored.index(b"\n") + 1 if stored.startswith(b"retry:") else 0
    if not stored.startswith(b"event: ", start):
        return b"message"
    return stored[start + 7 : stored.index(b"\n", start)]


def encode_event(data: Any, event: str | None = None, retry: int | None = None) -> bytes:
    """Encode an event as it is stored: without the line of its id.

    Data that is not text becomes JSON.

    Raises:
        EventError: the format can't represent the event, its type is one of the server's own, or
            the time is longer than browsers can wait.
    """
    if event in RESERVED:
        raise EventError(
            f"events of the type {event!r} are the server's own: publish another type than "
            + " and ".join(RESERVED)
        )
    if retry is not None and isinstance(retry, int) and retry > MOST_RETRY:
        raise EventError(f"retry may be {MOST_RETRY} milliseconds at most: browsers keep no more")
    # None would be an event without data, which no client dispatches.
    data = "null" if data is None else data
    return encode(Event(data, event=None if event == "" else event, retry=retry))


def frame(epoch: str, entry: Entry, is_last: bool = False) -> bytes:
    """Encode a stored event as clients get it; if it ends their stream its id says so."""
    template = b"id: %b-%d.end\n%b" if is_last else b"id: %b-%d\n%b"
    return template % (epoch.encode(), entry.number, entry.frame)


def is_last_frame(framed: bytes) -> bool:
    """Whether `frame` has made these bytes of an event that ends a stream."""
    return framed[: framed.index(b"\n")].endswith(b".end")


def gap_frames(
    reason: GapReason, last_event_id: str, missing: Iterable[Missing], cursor: Cursor
) -> bytes:
    """Encode the events that tell a client what it can't be given, one for each name or pattern.

    Args:
        last_event_id: the id that the client presented.
        missing: at least one.
        cursor: the place from which the stream goes on. Only the last event has it for its id, so
            that a client that breaks off between them gets all of them again.
    """

    def id_of(number: int | None) -> str | None:
        return None if number is None else str(Cursor(cursor.epoch, number))

    events = []
    for each in missing:
        data = {
            "reason": reason,
            "channel": str(each.pattern),
            "last_event_id": last_event_id,
            "oldest": id_of(each.oldest),
            "newest": id_of(each.newest),
        }
        # Not by the application's JSON: the server's own events are the same everywhere.
        text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
        events.append(Event(text, event="gap"))
    events[-1] = replace(events[-1], id=str(cursor))
    return b"".join(map(encode, events))
