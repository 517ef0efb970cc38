"""What is moved from one backend to another, as plain values, and what a backend does for it.

Beside its stores each backend has a `Transfer`: it gives all there is in parts of bounded size, and
takes such parts into a place where nothing is stored yet. Times are ages, so that no clock of one
backend counts in the other. No I/O.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

#: Bytes, and things, after which a part ends.
PART_BYTES, PART_ITEMS = 256 * 1024, 500

#: Bytes that each backend takes at most, about: for an event, a frame, a key, a channel or run,
#: beside their own content.
OVERHEAD = 128


class EventHead(NamedTuple):
    """What is known of all events together."""

    epoch: str
    newest: int  # the highest number ever given out
    holes: str  # see `sseflask.store.holes`
    floor: int  # what was trimmed from channels that are not known any more had numbers up to here


class MovedEvent(NamedTuple):
    """An event of a channel."""

    number: int
    age: float  # seconds
    frame: bytes


class ChannelPart(NamedTuple):
    """Some consecutive events of a channel: all events of a channel come one after the other."""

    channel: str
    begins: bool  # it is the channel's first part
    # The number of its event before these. In its first part that is the highest number that was
    # trimmed from it, or may have been; 0 if none was.
    before: int
    events: Sequence[MovedEvent]  # none if all were trimmed


class KeyPart(NamedTuple):
    """The key of an append of events, see `Append`."""

    key: str
    digest: bytes
    first: int
    last: int
    age: float


class RunPart(NamedTuple):
    """Some consecutive frames of a run that has ended."""

    id: str
    subject: str
    account: str
    label: str
    key: str | None
    digest: bytes
    last: int  # the number of the last frame
    outcome: bytes
    notes: bytes
    age: float  # seconds since its end
    keep: float | None  # see `Claim`
    first: int  # the number of the first of these frames
    frames: Sequence[bytes]  # none if the run has none

    @property
    def ends(self) -> bool:
        """Whether it is the last part of its run."""
        return self.first + len(self.frames) > self.last


Part = ChannelPart | KeyPart | RunPart


@dataclass
class Counts:
    """How much there is, or was moved."""

    channels: int = 0
    events: int = 0
    keys: int = 0
    runs: int = 0  # that have ended
    frames: int = 0
    bytes: int = 0  # of events and frames
    running: int = 0  # runs that go on, which are not moved

    @property
    def room(self) -> int:
        """The bytes that a place needs for them, about; rather more than less."""
        things = self.channels + self.events + self.keys + self.frames + 8 * self.runs
        return self.bytes + OVERHEAD * things

    def add(self, part: Part) -> None:
        """Count a part."""
        if isinstance(part, ChannelPart):
            self.channels += part.begins
            self.events += len(part.events)
            self.bytes += sum(len(event.frame) for event in part.events)
        elif isinstance(part, KeyPart):
            self.keys += 1
        else:
            self.runs += part.ends
            self.frames += len(part.frames)
            self.bytes += sum(map(len, part.frames))


class Transfer(Protocol):
    """The events and runs at one place, for the one process that moves them.

    Methods block, and raise `StoreError` with a message for people.
    """

    @property
    def name(self) -> str:
        """What people call the place."""

    # -- from it -----------------------------------------------------------------------------------

    def open(self, *, alone: bool = True) -> None:
        """Begin. ``alone``: refuse a place that a service uses."""

    def head(self) -> EventHead | None:
        """What is known of all events; ``None`` if there are none, nor ever were."""

    def counts(self) -> Counts:
        """How much there is."""

    def parts(self) -> Iterator[Part]:
        """All there is."""

    def check_unchanged(self) -> None:
        """Raise `StoreError` if a service has used the place meanwhile."""

    # -- into it -----------------------------------------------------------------------------------

    def why_not(self, counts: Counts) -> str:
        """Why that much can't be moved here, and what to do; empty if it can."""

    def begin(self) -> None:
        """Mark the place, so that no service uses it; delete what an unfinished move has left."""

    def take(self, part: Part) -> None:
        """Store a part, now or with the next ones."""

    def finish(self, head: EventHead | None) -> None:
        """All has been taken: store it for good, and remove the mark."""

    def abandon(self) -> None:
        """Delete what has been taken, and remove the mark."""

    def close(self) -> None:
        """End, without an error. What was begun and not finished stays marked."""
