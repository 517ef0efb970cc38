"""The events of channels as bytes: what is stored, the ids that clients see, gaps. No I/O."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sseflask.counters.counts import GapReason
from sseflask.errors import EventError
from sseflask.event import MOST_RETRY, Event
from sseflask.store.api import Entry
from sseflask.wire import encode

__all__ = [
    "EARLIEST",
    "RESERVED",
    "Cursor",
    "Gap",
    "Types",
    "check_types",
    "event_type",
    "frame",
    "has_ended",
    "last_frame",
    "stored",
]

#: Types of events that only the server sends.
RESERVED = ("gap", "failure")

#: In place of an id: from the first event that is there.
EARLIEST = "earliest"

_ID = re.compile(r"([a-z0-9]{1,32})-(0|[1-9][0-9]{0,17})(\.end)?\Z", re.ASCII)

Types = frozenset[bytes]
"""Types of events, as they are in stored events."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in a log; its text is the id that clients see, but for the mark of an end.

    Args:
        epoch: the log's.
        number: of the last event before it; 0 is before the first.
    """

    epoch: str
    number: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.number}"

    @classmethod
    def parse(cls, text: str) -> Cursor | None:
        """Read an id; ``None`` where it can't be one of ours."""
        found = _ID.match(text)
        return cls(found[1], int(found[2])) if found else None


def has_ended(id: str) -> bool:
    """Whether an id is that of an event that has ended its stream."""
    found = _ID.match(id)
    return found is not None and found[3] is not None


def check_types(types: str | Iterable[str]) -> Types:
    """Read the type of an event, or some of them.

    Raises:
        ValueError: no event that is published can have it; or there is none.
    """
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
    """The type of a stored event, as its subscribers see it."""
    start = stored.index(b"\n") + 1 if stored.startswith(b"retry:") else 0
    if not stored.startswith(b"event: ", start):
        return b"message"
    return stored[start + 7 : stored.index(b"\n", start)]


def stored(data: Any, event: str | None = None, retry: int | None = None) -> bytes:
    """The bytes of an event as a log keeps them: without the line of its id.

    Args:
        data: text as it is, or any other value as JSON.
        event: its type.
        retry: the reconnection time it sets, in milliseconds.

    Raises:
        EventError: the format can't represent it, the type is one of the server's own, or nobody
            could wait so long.
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


def frame(epoch: str, entry: Entry) -> bytes:
    """The bytes of a stored event as clients get them."""
    return b"id: %b-%d\n%b" % (epoch.encode(), entry.number, entry.frame)


def last_frame(epoch: str, entry: Entry) -> bytes:
    """The same of the event that ends a stream: who comes back with its id has got all."""
    return b"id: %b-%d.end\n%b" % (epoch.encode(), entry.number, entry.frame)


@dataclass(frozen=True, slots=True)
class Gap:
    """What can't be replayed, of one name or pattern.

    Args:
        reason: the log has forgotten it (``trimmed``), the id is another log's (``epoch``), or it
            can't be made out (``unknown``).
        channel: the name or pattern, as it was asked for.
        last_event_id: what the client presented.
        oldest: the first event that is there, ``None`` where none is.
        newest: the last.
    """

    reason: GapReason
    channel: str
    last_event_id: str
    oldest: Cursor | None
    newest: Cursor | None

    def _event(self, id: str | None) -> Event:
        data = {
            "reason": self.reason,
            "channel": self.channel,
            "last_event_id": self.last_event_id,
            "oldest": str(self.oldest) if self.oldest else None,
            "newest": str(self.newest) if self.newest else None,
        }
        # Not by the application's JSON: the server's own events are the same everywhere.
        text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
        return Event(text, event="gap", id=id)

    @staticmethod
    def frames(gaps: Iterable[Gap], goes_on: Cursor) -> bytes:
        """The bytes of some gaps.

        Args:
            gaps: at least one.
            goes_on: from where the stream goes on. Only the last gap has it for its id, so that a
                client that breaks off between them is told all of them again.
        """
        *others, last = gaps
        events = [gap._event(None) for gap in others] + [last._event(str(goes_on))]
        return b"".join(encode(event) for event in events)
