"""Databases of runs for tests, on a clock that tests put forward, with short ways to use them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from sseflask.completions.completion_outcome import CompletionOutcome, UsageNotes
from sseflask.completions.dialects import CHAT
from sseflask.runs.outcome import Outcome, interrupted
from sseflask.store.run_api import Claim, Run, RunAppend, RunKey, RunLimits, size_of
from sseflask.store.sqlite.file import used_bytes
from sseflask.store.sqlite.run_database import RunDatabase
from tests.clock import Clock
from tests.scripted_upstream import frame

DAY = 86_400.0
FINISHED, STOPPED = CompletionOutcome("finished", "stop"), CompletionOutcome("stopped")
INTERRUPTED = Outcome.failed(interrupted()).ending()

_ids = count(1)


@contextmanager
def opened(
    path: Path | str = ":memory:",
    *,
    clock: Callable[[], float] | None = None,
    seconds: float = DAY,
    most_bytes: float = math.inf,
) -> Iterator[RunDatabase]:
    limits = RunLimits(seconds, most_bytes)
    database = RunDatabase(str(path), limits, INTERRUPTED, clock or Clock())
    database.open()
    try:
        yield database
    finally:
        database.close()


def fresh(
    key: str | None = None,
    digest: bytes = b"",
    *,
    subject: str = "alice",
    account: str = "alice",
    most: int = 100,
    label: str = CHAT,
    keep: float | None = None,
    successor: bytes = b"",
) -> Claim:
    """A claim of a run with an id of its own."""
    return Claim(f"{next(_ids):032x}", subject, account, most, label, key, digest, keep, successor)


def begun(database: RunDatabase, claim: Claim | None = None) -> Run:
    """A run that did not exist before."""
    claim = claim or fresh()
    claimed = database.claim(claim)
    assert isinstance(claimed, tuple)
    run, repeated = claimed
    assert (run.id, repeated) == (claim.id, False)
    return run


def used_by(database: RunDatabase) -> int:
    """The bytes that are used of a database's file."""
    with database.reading() as connection:
        return used_bytes(connection)


def frames_of(first: int, amount: int) -> list[bytes]:
    """Frames that say which they are."""
    return [frame(f"{number} ") for number in range(first, first + amount)]


def append_of(
    key: RunKey,
    first: int,
    frames: list[bytes],
    outcome: Outcome | None = None,
    before: int | None = None,
) -> RunAppend:
    """The append of a writer that has stored these frames before, or this many bytes."""
    usage = UsageNotes()
    earlier = frames_of(1, first - 1)
    for each in earlier:
        usage.after(each)
    notes = [usage.after(each) for each in frames]
    size = size_of(frames) + (size_of(earlier) if before is None else before)
    return RunAppend(key, first, frames, notes, size, outcome.ending() if outcome else None)


def put(database: RunDatabase, run: Run, first: int, amount: int) -> bool:
    """Append frames, and say whether they were stored."""
    return is_stored(database, append_of(run.key, first, frames_of(first, amount)))


def is_stored(database: RunDatabase, append: RunAppend) -> bool:
    """Store an append, and say whether it was not refused."""
    refused, _ = database.append([append])
    assert refused in ([], [append])
    return not refused


def finish(database: RunDatabase, run: Run, outcome: Outcome = FINISHED) -> Run | None:
    """End a run as its writer does; ``None`` if that is refused."""
    refused, ended = database.append([append_of(run.key, now(database, run).last + 1, [], outcome)])
    assert len(refused) + len(ended) == 1
    return ended[0] if ended else None


def end(
    database: RunDatabase, key: RunKey, outcome: Outcome, *, unless_attached: bool = False
) -> Run | None:
    """End a run as anybody can."""
    return database.end(key, outcome.ending(), unless_attached=unless_attached)[0]


def now(database: RunDatabase, run: Run) -> Run:
    """A run as it is stored by now."""
    (found,) = database.follow([run.key])
    return found


def outcome_of(run: Run | None) -> CompletionOutcome:
    assert run is not None
    return CompletionOutcome.of(run)


def code_of(run: Run | None) -> str | None:
    """How a run failed."""
    outcome = outcome_of(run)
    assert outcome.kind == "failed"
    assert outcome.failure is not None
    return outcome.failure.code


def numbers(frames: Sequence[tuple[int, bytes]]) -> list[int]:
    return [number for number, _ in frames]


def everything(database: RunDatabase, run: Run) -> list[tuple[int, bytes]]:
    found: list[tuple[int, bytes]] = []
    while page := database.frames(run.key, found[-1][0] if found else 0, 1000):
        found += page
    return found
