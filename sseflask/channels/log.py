"""What a log of events is, whatever stores it: types and a protocol, no I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sseflask.channels.names import Pattern

__all__ = ["Append", "Appended", "Entry", "KeyReused", "Log", "LogError", "Missing"]


class LogError(Exception):
    """The store can't do it now: full, read-only, locked for too long, damaged, not open."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One stored event.

    Args:
        number: its place in the one order of all channels, from 1.
        channel: where it was published.
        frame: its bytes without the line of its id.
    """

    number: int
    channel: str
    frame: bytes


@dataclass(frozen=True, slots=True)
class Append:
    """Events for one channel that are stored together or not at all.

    Args:
        channel: the channel's name, checked by the caller.
        frames: one for each event, without the line of its id; at least one.
        key: what makes a repetition of this append a no-op; already scoped to who may repeat it.
        digest: stands for the content, which a repetition has to have as well.

    Raises:
        ValueError: there are no frames. Told here, as the log stores the appends of many together.
    """

    channel: str
    frames: tuple[bytes, ...]
    key: str | None = None
    digest: bytes = b""

    def __post_init__(self) -> None:
        if not self.frames:
            raise ValueError("there is nothing to append")


@dataclass(frozen=True, slots=True)
class Appended:
    """The consecutive numbers of an append's events; ``repeated`` where it had been there."""

    first: int
    last: int
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class KeyReused:
    """In place of `Appended`: the key belongs to an append with other content."""

    key: str


@dataclass(frozen=True, slots=True)
class Missing:
    """A pattern of which an event after the cursor is no longer there, or may not be.

    Args:
        pattern: as it was asked for.
        oldest: the number of the first event that is there, ``None`` where none is.
        newest: the number of the last.
    """

    pattern: Pattern
    oldest: int | None
    newest: int | None


class Log(Protocol):
    """Numbers events, keeps some, gives them back.

    Every method may block, and raises `LogError` when the store can't do it; the log can be used
    again as soon as the store can. All calls come from one thread. Other processes may use the
    same store at the same time: each call is atomic, two are not.

    Events are numbered from 1 without a hole, in the order in which they become visible: who has
    seen a number never sees a new one below it. Nothing depends on a clock but what is forgotten.
    """

    @property
    def epoch(self) -> str:
        """What tells this log's numbers from those of another; lower-case letters and digits."""

    def open(self) -> None:
        """Make the log usable, creating it where it is not there."""

    def close(self) -> None:
        """Let go of it; harmless when it is not open."""

    def append(self, appends: Sequence[Append]) -> list[Appended | KeyReused]:
        """Store some appends, each whole; where `LogError` is raised none of them is stored."""

    def newest(self) -> int:
        """Give the highest number ever given out, 0 in a new log."""

    def since(self, number: int, limit: int) -> list[Entry]:
        """Give the first events of all channels after a number."""

    def read(self, patterns: Sequence[Pattern], after: int, upto: int, limit: int) -> list[Entry]:
        """Give the first events of some channels after a number, up to another."""

    def missing(self, patterns: Sequence[Pattern], after: int) -> list[Missing]:
        """Give those patterns of which an event after a number has been forgotten.

        Asked after `read`, with the same number: another process may forget something in between,
        and what this answers then holds for what was read before.
        """

    def trim(self) -> int:
        """Forget a bounded number of events that are too many or too old; give how many."""

    def changed(self) -> bool:
        """Whether other processes may have added events since `newest` or `since` was called."""

    def replaced(self) -> bool:
        """Whether what was opened is gone, so that it has to be closed and opened again."""
