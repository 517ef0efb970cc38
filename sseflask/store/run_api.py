"""What the log of runs takes and gives: types, no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from sseflask.completions.outcome import Outcome
from sseflask.store.api import StoreError

__all__ = ["Append", "Claim", "LogFull", "Run", "TooMany"]


class Run(NamedTuple):
    """A run as it is stored.

    Args:
        number: what it is called in the log.
        id: what clients call it; unguessable.
        dialect: how its frames are to be read.
        last: the number of its last frame, 0 where there is none.
        ended: the number of its terminal event, ``None`` while it goes on.
        outcome: how it ended, as `Outcome.to_json` gives it.
    """

    number: int
    id: str
    dialect: str
    last: int
    ended: int | None
    outcome: str | None


@dataclass(frozen=True, slots=True)
class Claim:
    """A run to be begun, unless there is one with the same key.

    Args:
        id: a fresh one.
        subject: whom it belongs to.
        account: whose running runs are counted.
        most: how many of them there may be.
        dialect: how its frames are to be read.
        key: what makes a repetition come back to the same run; scoped to subject and route.
        digest: stands for the content, which a repetition has to have as well.
    """

    id: str
    subject: str
    account: str
    most: int
    dialect: str
    key: str | None = None
    digest: bytes = b""


@dataclass(frozen=True, slots=True)
class TooMany:
    """In place of a run: that many of the account's are running."""

    running: int


class LogFull(StoreError):
    """What is running fills the log: nothing more can be begun until some of it has ended."""


@dataclass(slots=True)
class Append:
    """What a writer adds to its run.

    Args:
        run: the run's number.
        first: the number of the first frame.
        frames: consecutive ones; may be none at the end.
        outcome: the end, where this is the last.
    """

    run: int
    first: int
    frames: list[bytes]
    outcome: Outcome | None = None
