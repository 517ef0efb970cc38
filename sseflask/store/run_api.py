"""What keeps runs: the protocol of its backends, and what they take and give. No I/O."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeAlias

from sseflask.store.api import KeyReused, Store, StoreError

RunKey: TypeAlias = Any
"""Names a run within its store; hashable. Only the store knows what it means."""

#: Bytes that a store takes for a frame beside the frame's own, about.
FRAME_BYTES = 48


def size_of(frames: Sequence[bytes]) -> int:
    """What a store takes for some frames, in bytes, about."""
    if len(frames) == 1:  # nearly always
        return len(frames[0]) + FRAME_BYTES
    return sum(map(len, frames)) + len(frames) * FRAME_BYTES


class Run(NamedTuple):
    """A run as it is stored."""

    key: RunKey
    id: str  # what clients call it; unguessable
    label: str
    last: int  # the number of its last frame, 0 if there is none
    ended: int | None = None  # the number of its terminal event, None while it goes on
    outcome: bytes | None = None  # see `Ending`; None while it goes on
    # Those of its last frame, see `RunAppend`; given once it has ended, and to who inherits it.
    notes: bytes = b""
    size: int = 0  # `size_of` its frames; given to who inherits it


@dataclass(frozen=True, slots=True)
class Claim:
    """A run to be begun, unless there is one with the same key."""

    id: str  # a fresh one
    subject: str  # the run's owner
    account: str  # whose running runs are counted
    max_running: int
    label: str  # what kind of frames it has; the store does not look at it
    key: str | None = None  # makes a repetition find the same run; scoped to subject and route
    digest: bytes = b""  # stands for the content, which a repetition must have as well
    # Seconds for which it is kept after its end; None: as `RunLimits` says.
    keep: float | None = None
    # How another process can go on with it, see `RunListener.inherited`; empty: none can. Opaque to
    # the store.
    successor: bytes = b""


@dataclass(frozen=True, slots=True)
class TooMany:
    """In place of a run: that many of the account's are running."""

    running: int


class PassedOn(StoreError):
    """This process does not write the run any more: another one goes on with it, or will."""


class StoreFull(StoreError):
    """Running runs fill the store: nothing can be begun until some of them have ended."""


class Ending(NamedTuple):
    """How a run ends."""

    outcome: bytes  # opaque to the store
    frees_key: bool = False  # if it has no frame, a repetition of its request begins another run


@dataclass(slots=True)
class RunAppend:
    """What a writer adds to its run."""

    run: RunKey
    first: int  # the number of the first frame
    frames: list[bytes]  # consecutive ones; may be none at the end
    # For each frame, what its writer knows of the run up to this frame. Opaque to the store, which
    # keeps those of the last frame when the run ends, see `Run`.
    notes: list[bytes]
    size: int  # `size_of` all frames of the run up to the last of these
    ending: Ending | None = None
    added: int = field(init=False, compare=False)  # `size_of` these frames

    def __post_init__(self) -> None:
        self.added = size_of(self.frames)

    @property
    def last(self) -> int:
        """The number of the last frame, or of the frame before if there is none."""
        return self.first + len(self.frames) - 1


@dataclass(frozen=True, slots=True)
class RunLimits:
    """How much a store of runs keeps."""

    # For which a run is kept after its end, and its key with it, unless its claim says otherwise.
    # A run that waits for a process to go on with it waits for so long as well, or for a minute.
    seconds: float
    # To stay below this, the store forgets the runs with the earliest ends, and then those whose
    # claims said how long to keep them; if that is not enough, running ones have to end.
    max_bytes: float = math.inf


class Endings(NamedTuple):
    """The ends of runs that the store itself ends."""

    interrupted: Ending  # its process is dead or leaves, and none goes on; or it was never begun
    full: Ending  # it is the largest of those that fill the store
    unavailable: Ending  # its frames could not be stored for a long time


class RunFrames(NamedTuple):
    """Consecutive frames of a run, at least one; ``first`` is the number of the first."""

    run: RunKey
    first: int
    frames: list[bytes]


class RunListener(Protocol):
    """Gets what becomes of runs in one process.

    Called in the event loop of that process, or without gevent in any thread. Must not block.
    A process follows the runs that it has claimed or attached to, until they end.
    """

    def frames(self, batch: Sequence[RunFrames]) -> None:
        """The next frames of followed runs, once they are stored; without a hole, each once."""

    def ended(self, run: Run, here: bool) -> None:
        """A run that is followed, or that this process ended, has ended, after its last frames.

        ``here``: whether this process has ended it; true in exactly one process.
        """

    def inherited(self, run: Run, successor: bytes) -> None:
        """This process writes a run from now on: the one that wrote it has died, or has left.

        Exactly one process is told. Frames up to `Run.last` are stored; if this process followed
        the run, they have all been given before. The next append has the number after it, and
        counts `Run.size`.

        Args:
            run: with its notes and its size.
            successor: what the run's claim says of how to go on.
        """

    def lost(self, run: RunKey, error: StoreError | None) -> None:
        """Nothing more will come of a followed run.

        Its frames can't be stored; or this process is not its writer any more (`PassedOn`), and
        does not follow it; or, without an error, the store no longer has the run.
        """

    def beat(self) -> None:
        """A second has passed; called earlier if `RunStore.attached_elsewhere` may have changed."""


class RunStore(Store, Protocol):
    """Keeps runs, for all processes that use the same store.

    Any thread or greenlet. What blocks, blocks only the calling one, and raises `StoreError` if the
    store can't do it now. No time comes from a caller. A run has one writer, the process that
    claimed it. If that process dies, or has not said for some seconds that it lives, another one
    ends the run, and what the old writer appends is refused.

    If its claim has a successor, another process inherits it instead: whenever its writer has left,
    but only once in its life because its writer has died, as it may be what kills its writers.
    Until one does, the run waits, and counts as running; see `RunLimits.seconds`.
    """

    def follow(self, listener: RunListener, *, inherits: bool = True) -> None:
        """Begin, and tell a listener what becomes of runs. Once, before all else.

        ``inherits``: whether this process may be told to go on with runs of others, until it
        leaves. If not, these wait for one that may.
        """

    def claim(self, claim: Claim) -> tuple[Run, bool] | KeyReused | TooMany:
        """Begin a run that this process writes, or find the one with the same key. Blocks.

        Gives the run, and whether it was there before. Raises `StoreFull`.
        """

    def withdraw(self, claim: Claim) -> None:
        """End the run of a claim as interrupted, and free its key. Never blocks.

        For a claim whose result has not come in time; harmless without a run, and tried again.
        """

    def find(self, id: str, subject: str) -> Run | None:
        """Give a subject's run; ``None`` if there is none, or it is another subject's. Blocks."""

    def frames(self, run: RunKey, after: int, limit: int) -> list[tuple[int, bytes]]:
        """Give a run's first frames after one, with their numbers; fewer if large. Blocks."""

    def attach(self, run: RunKey) -> Run | None:
        """Follow a run if it goes on, and give it; ``None`` if it is forgotten. Blocks.

        If this process did not follow it before, the listener gets what comes after `Run.last`.
        """

    def detach(self, run: RunKey) -> None:
        """Follow a run of another process no longer. Never blocks; what fails is tried again."""

    def attached_elsewhere(
        self, runs: Collection[RunKey], done: Callable[[set[RunKey]], object]
    ) -> None:
        """Find those runs to which other processes are attached. Never blocks.

        ``done`` is called as a listener is; not at all if the store can't say now.
        """

    def append(self, append: RunAppend) -> None:
        """Store what a run's writer adds to it, in order, each append whole. Never blocks.

        What fails is tried again for some time. What follows something that could not be stored is
        not stored either.
        """

    def wait_for_room(self, run: RunKey) -> None:
        """Block while much of what was appended to a run still waits to be stored."""

    def end(self, run: RunKey, ending: Ending) -> Run | None:
        """End a run, whichever process writes it; one that has ended stays as it is. Blocks.

        Gives the run as it is then, ``None`` if it is forgotten.
        """

    def end_soon(self, run: RunKey, ending: Ending, *, unless_attached: bool = False) -> None:
        """`end` a run; perhaps not if other processes are attached to it.

        Never blocks; what fails is not tried again.
        """

    def inherit_no_more(self) -> None:
        """Leave to others what nobody writes, since this process is to go. Never blocks."""

    def leave(self) -> None:
        """Pass on what this process writes, or end it as interrupted, since it goes. Never blocks.

        From then on it inherits nothing.
        """
