"""What a log of events is, whatever stores it: types and a protocol, no I/O."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeVar

from sseflask.store.names import Pattern

__all__ = [
    "Append",
    "Appended",
    "Entry",
    "Extent",
    "History",
    "HistoryQuery",
    "KeyReused",
    "Log",
    "Missing",
    "MissingScope",
    "Notice",
    "NoticeKind",
    "Page",
    "Steps",
    "StoreBusy",
    "StoreError",
]

Result = TypeVar("Result")

Steps = Generator[None, None, Result]
"""Work in short steps, between which others have their turn; its result comes at the end."""

MissingScope = Literal["none", "trimmed", "all"]
"""See `HistoryQuery`."""

NoticeKind = Literal["close", "count"]
"""To end the subscriptions of a name or pattern; to count them, and answer."""


class StoreError(Exception):
    """The store can't do it now: full, read-only, locked for too long, damaged, not open."""


class StoreBusy(StoreError):
    """The store has not answered in time; what was asked of it may still be done."""


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
class Notice:
    """What one process tells all that share a log, itself as well. No event: no client gets it.

    Args:
        number: its place among all notices, from 1 and without a hole.
        after: the highest number that an event had by then.
        kind: what is to be done.
        body: with which name or pattern.
    """

    number: int
    after: int
    kind: NoticeKind
    body: str


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


@dataclass(frozen=True, slots=True)
class HistoryQuery:
    """What to read of some channels.

    Args:
        patterns: names and patterns of the channels.
        after: read events with higher numbers.
        limit: how many events at most.
        missing: of which patterns to say that events are missing: of those that lack an event
            after ``after`` (``trimmed``), of all, or of none, which is quicker.
    """

    patterns: tuple[Pattern, ...]
    after: int
    limit: int
    missing: MissingScope = "trimmed"


@dataclass(slots=True)
class History:
    """The answer to a `HistoryQuery`, from one moment. Shared between callers: don't change it.

    Args:
        epoch: the epoch of all the numbers in it.
        entries: in the order of their numbers.
        last: nothing that was asked for is between the entries, or from the last one up to here.
        missing: see `HistoryQuery`. What was forgotten before the entries were read is in it.
        newest: the highest number that the log had given out. Everything that was stored before
            `Log.history` was called has a number up to here.
        body: room for the entries' frames, for those who share them.
    """

    epoch: str
    entries: list[Entry]
    last: int
    missing: list[Missing]
    newest: int
    body: bytes | None = field(default=None, repr=False, compare=False)

    def upto(self, number: int) -> tuple[list[Entry], int]:
        """Give the entries up to a number, and the number up to which they are complete."""
        if self.last <= number:
            return self.entries, self.last
        there = bisect_right(self.entries, number, key=lambda entry: entry.number)
        return self.entries[:there], number


@dataclass(frozen=True, slots=True)
class Extent:
    """How much a log holds.

    Args:
        bytes: what its file uses; free room in it is not counted.
        oldest: the age of the oldest thing in it, in seconds; 0 where there is nothing.
    """

    bytes: int
    oldest: float


class Page(list[Entry]):
    """Entries in the order of their numbers.

    Attributes:
        complete: these are all that were asked for; otherwise there may be more behind the last.
    """

    def __init__(self, entries: Iterable[Entry], complete: bool) -> None:
        super().__init__(entries)
        self.complete = complete


class Log(Protocol):
    """Numbers events, keeps some, gives them back.

    Every method may block, and raises `StoreError` when the store can't do it; the log can be used
    again as soon as the store can. All calls come from one thread. Other processes may use the
    same store at the same time: each call is atomic, two are not.

    Events are numbered from 1 without a hole, in the order in which they become visible: who has
    seen a number never sees a new one below it. Nothing depends on a clock but what is forgotten.
    """

    @property
    def epoch(self) -> str:
        """What tells this log's numbers from those of another; lower-case letters and digits."""

    @property
    def last_notice(self) -> int:
        """The number of the newest notice, as `newest` and `append` have last seen it."""

    def open(self) -> None:
        """Make the log usable, creating it where it is not there."""

    def close(self) -> None:
        """Let go of it; harmless when it is not open."""

    def append(self, appends: Sequence[Append]) -> list[Appended | KeyReused]:
        """Store some appends, each whole; where `StoreError` is raised none of them is stored."""

    def newest(self) -> int:
        """Give the highest number ever given out, 0 in a new log."""

    def renew(self) -> None:
        """Take another epoch, since numbers are given out again that somebody has seen."""

    def since(self, number: int, limit: int) -> Page:
        """Give the first events of all channels after a number; fewer where they are large."""

    def history(self, query: HistoryQuery) -> Steps[History]:
        """Give the first events of some channels after a number; fewer where that takes long.

        Each step takes a bounded time, whatever is asked and however much there is. Where fewer
        events come than ``limit`` there may be more behind `History.last`, if that is below
        `History.newest`; it grows with each call.
        """

    def notify(self, kind: NoticeKind, bodies: Sequence[str]) -> int:
        """Store some notices, at least one, and give the number of the last."""

    def notices(self, after: int) -> list[Notice]:
        """Give the notices behind one, as far as they are kept: the last 500 at least."""

    def answer(self, notice: int, process: str, number: int) -> None:
        """Store what a process answers to a notice."""

    def answers(self, notice: int) -> dict[str, int]:
        """Give the answers to a notice by processes."""

    def forget_answers(self, notice: int) -> None:
        """Nobody waits for them any more."""

    def trim(self) -> int:
        """Forget a bounded number of events and keys that are too old; give how many."""

    def changed(self) -> bool:
        """Whether other processes may have added something since `newest` was called."""

    def replaced(self) -> bool:
        """Whether what was opened is gone, so that it has to be closed and opened again."""

    def extent(self) -> Extent:
        """Give how much there is."""
