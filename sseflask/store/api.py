"""What a store of events promises, whatever keeps them: protocols and types, no I/O.

A backend is a package beside this module, such as `sseflask.store.sqlite`. `sseflask.store.open`
chooses one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from sseflask.errors import Failure
from sseflask.store.names import Pattern

MissingScope = Literal["none", "trimmed", "all"]
"""See `HistoryQuery`."""

Health = Literal["available", "read_only", "unavailable", "busy"]
"""Whether a store can be used now: ``read_only`` if it can be read and stores nothing, ``busy`` if
it does not answer at once."""

Durability = Literal["memory", "ephemeral", "disk"]
"""How long events are kept: as long as the process; until the container is replaced or the machine
restarts; as long as the disk, which some platforms replace at every deploy."""


class StoreError(Exception):
    """The store can't do it now: full, read-only, locked for too long, damaged, not open.

    Attributes:
        reason: what the server that keeps the store says, or a few words; fit for strangers. Empty
            if it is not known.
    """

    reason = ""


class StoreBusy(StoreError):
    """The store has not answered in time; what was asked of it may still be done."""


def store_unavailable(name: str = "event store") -> Failure:
    """The 503 for a request that a store can't serve now. The server's log says why."""
    return Failure(
        f"The {name} is not available now: please try again.",
        status=503,
        code="log_unavailable",
        headers={"Retry-After": "5"},
        transient=True,
    )


def key_reused(what: str) -> Failure:
    """The 409 for a key that was used for other content; each of ``what`` needs a new one."""
    header = "Idempotency-Key"
    return Failure(
        f"This {header} was used for other content: use a new key for every {what}, and the same "
        "one only to repeat it.",
        status=409,
        type="invalid_request_error",
        param=header,
        code="idempotency_key_reused",
    )


class Problem(NamedTuple):
    """Why a store can't do everything now."""

    reason: str  # in a few words, fit for strangers: without addresses, paths and users
    since: float  # seconds since the epoch


class Position(NamedTuple):
    """A place in the one order of all events."""

    epoch: str  # tells a store's numbers from other numbers; lower-case letters and digits
    number: int  # that of the last event before the place; 0 is before the first


@dataclass(frozen=True, slots=True)
class Entry:
    """One stored event."""

    number: int  # its place in the one order of all channels, from 1
    channel: str
    frame: bytes  # without the line of its id


def count_upto(entries: Sequence[Entry], number: int) -> int:
    """How many of some entries in order have a number up to this one."""
    return bisect_right(entries, number, key=lambda entry: entry.number)


@dataclass(frozen=True, slots=True)
class Append:
    """Events of one channel that are stored together or not at all."""

    channel: str  # checked by the caller
    frames: tuple[bytes, ...]  # one for each event, without the line of its id; at least one
    # Makes a repetition of this append a no-op; already scoped to those who may repeat it. Known
    # for a day.
    key: str | None = None
    digest: bytes = b""  # stands for the content, which a repetition must have as well

    def __post_init__(self) -> None:
        if not self.frames:
            raise ValueError("there is nothing to append")


@dataclass(frozen=True, slots=True)
class Appended:
    """What became of an `Append`: the consecutive numbers of its events."""

    first: int
    last: int
    repeated: bool = False  # they had been stored before, with the same key
    epoch: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class KeyReused:
    """In place of `Appended`: the key belongs to an append with other content."""

    key: str


def stored_entries(
    appends: Sequence[Append], results: Sequence[Appended | KeyReused]
) -> list[Entry]:
    """The events that some appends have added."""
    return [
        Entry(number, append.channel, frame)
        for append, result in zip(appends, results, strict=True)
        if isinstance(result, Appended) and not result.repeated
        for number, frame in enumerate(append.frames, result.first)
    ]


@dataclass(frozen=True, slots=True)
class Missing:
    """A pattern of which an event after a number has been trimmed, or may have been."""

    pattern: Pattern
    oldest: int | None  # the number of the first event that is there
    newest: int | None


@dataclass(frozen=True, slots=True)
class HistoryQuery:
    """What to read of some channels."""

    patterns: tuple[Pattern, ...]
    after: int  # any integer from 0
    limit: int
    # Of which patterns to say that events are missing: of those that lack an event after ``after``
    # (``trimmed``), of all, or of none, which is quicker.
    missing: MissingScope = "trimmed"


@dataclass(slots=True)
class History:
    """The answer to a `HistoryQuery`. Shared between callers: don't change it."""

    epoch: str
    entries: list[Entry]  # fewer than the limit if they are large, or far apart
    # The number up to which the entries are complete. There are more behind it if ``newest`` is
    # higher; it is always higher than the number that was asked for then.
    last: int
    missing: list[Missing]  # whatever was trimmed before the entries were read is in it
    # The highest number given out so far. Everything that was stored before the call, by any
    # process, has a number up to here.
    newest: int
    #: Room for the entries' encoded frames, for the callers that share them.
    body: bytes | None = field(default=None, repr=False, compare=False)

    def upto(self, number: int) -> tuple[list[Entry], int]:
        """The entries up to a number, and the number up to which they are complete."""
        if self.last <= number:
            return self.entries, self.last
        return self.entries[: count_upto(self.entries, number)], number


@dataclass(frozen=True, slots=True)
class Extent:
    """How much a store holds."""

    bytes: int  # in use; room that it could use again is not counted
    oldest: float  # seconds since the oldest event, or since the first end of a run; 0 if none


@dataclass(frozen=True, slots=True)
class EventLimits:
    """How much a store keeps."""

    events: int  # of a channel at least, unless another limit is reached
    seconds: float  # the age at which events are trimmed
    bytes: float = float("inf")  # the oldest events are trimmed before the store uses more
    events_of: Mapping[str, int] = field(default_factory=dict)  # of some channels, not ``events``
    # Up to this age an event is kept though its channel has too many: other processes may not have
    # been given it yet.
    young_seconds: float = 0.0


class EventListener(Protocol):
    """Gets the news of an `EventStore` in one process, in one order, the same in all processes.

    Called in the event loop under gevent, elsewhere in a thread of the store, one call at a time.
    Must not block.
    """

    def started(self, epoch: str, newest: int) -> None:
        """The store is open, or another one than before: what follows comes after ``newest``."""

    def events(self, entries: Sequence[Entry], since: float) -> None:
        """Events have been stored, by this process or another. Ascending; each is given once.

        ``since`` is the monotonic time at which this process came to know of them.
        """

    def skipped(self, last: int) -> None:
        """Events up to a number were trimmed before they could be given; read what is left."""

    def closed(self, pattern: Pattern) -> None:
        """A process has called `EventStore.close_subscriptions`, after the events given so far."""

    def count(self, pattern: Pattern, answer: Callable[[int], None]) -> None:
        """A process has called `EventStore.count_subscriptions`.

        ``answer`` takes the number, now or later, from any thread.
        """


class Store(Protocol):
    """What stores of events and stores of runs have in common."""

    def health(self) -> Health:
        """Whether the store can be used now. Blocks for half a second at most; never raises."""

    def problem(self) -> Problem | None:
        """Why the last look at its health found it ``read_only`` or ``unavailable``, if known.

        Never blocks.
        """

    def warning(self) -> str:
        """What its operator should change, though all works; fit for strangers. Never blocks."""

    def durability(self) -> Durability:
        """For how long what is stored is there."""

    def extent(self) -> Extent:
        """How much there is. Blocks for half a second at most."""

    def close(self) -> None:
        """Leave the store, after what was begun before. Blocks for 2 seconds at most."""


class EventStore(Store, Protocol):
    """Numbers events, keeps some of them, and gives them to all processes that use it.

    Events are numbered from 1, in the order in which they become visible: no event comes with a
    lower number than one that was visible before. There is no hole in the numbers, unless a server
    was restarted or replaced: then numbers are left out that might have been given before. Only
    what is stored is given to a listener. Trimming depends on the store's clock only.

    Methods block the calling greenlet or thread only, and may be called by any, after `follow`.
    They raise `StoreError` if the store can't do it now; it can be used again as soon as that has
    passed.
    """

    def follow(self, listener: EventListener) -> None:
        """Use the store, and give its news to a listener. Once, before all else; never blocks."""

    def append(self, append: Append) -> Appended | KeyReused:
        """Store events, all or none. This process's listener is called before this returns.

        After a `StoreBusy` the events may be stored.
        """

    def history(self, query: HistoryQuery) -> History:
        """Read some events. Callers with equal queries may get the same answer."""

    @property
    def shared(self) -> bool:
        """Whether other processes may append, as far as is known. Never blocks."""

    def position(self, patience: float | None = None) -> Position:
        """The place behind everything that was stored before the call, by any process.

        ``patience``: seconds after which `StoreBusy` is raised; by default as for other calls.
        """

    def close_subscriptions(self, patterns: Sequence[Pattern]) -> None:
        """Tell the listeners of all processes to end some subscriptions.

        Returns once that is stored.
        """

    def count_subscriptions(self, pattern: Pattern) -> int:
        """The sum of what the listeners of all processes answer within a second."""
