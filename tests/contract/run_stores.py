"""Run logs for tests: opened on a clock that tests put forward, with short ways to use them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from sseflask.completions.dialects import CHAT
from sseflask.completions.outcome import Outcome
from sseflask.store.run_api import Append, Claim, Run
from sseflask.store.sqlite.run_retention import used_bytes
from sseflask.store.sqlite.runs import RunLog
from tests.scripted_upstream import frame

DAY = 86_400.0
FINISHED, STOPPED = Outcome("finished", "stop"), Outcome("stopped")

_ids = count(1)


class Clock:
    """A monotonic clock that stands still until a test puts it forward."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def opened(
    path: Path | str = ":memory:",
    *,
    clock: Callable[[], float] | None = None,
    seconds: float = DAY,
    most_bytes: float = math.inf,
) -> Iterator[RunLog]:
    log = RunLog(str(path), seconds=seconds, most_bytes=most_bytes, clock=clock or Clock())
    log.open()
    try:
        yield log
    finally:
        log.close()


def fresh(
    key: str | None = None,
    digest: bytes = b"",
    *,
    subject: str = "alice",
    account: str = "alice",
    most: int = 100,
    dialect: str = CHAT,
) -> Claim:
    """A claim of a run with an id of its own."""
    return Claim(f"{next(_ids):032x}", subject, account, most, dialect, key, digest)


def begun(log: RunLog, claim: Claim | None = None) -> Run:
    """A run that did not exist before."""
    claim = claim or fresh()
    claimed = log.claim(claim)
    assert isinstance(claimed, tuple)
    run, repeated = claimed
    assert (run.id, repeated) == (claim.id, False)
    return run


def used_by(log: RunLog) -> int:
    """The bytes that a log takes of its file."""
    with log._file.reading() as database:
        return used_bytes(database)


def told(first: int, amount: int) -> list[bytes]:
    """Frames that say which they are."""
    return [frame(f"{number} ") for number in range(first, first + amount)]


def put(log: RunLog, run: Run, first: int, amount: int) -> Run | None:
    """Append frames."""
    (result,) = log.append([Append(run.number, first, told(first, amount))])
    return result


def finish(log: RunLog, run: Run, outcome: Outcome = FINISHED) -> Run | None:
    (result,) = log.append([Append(run.number, now(log, run).last + 1, [], outcome)])
    return result


def now(log: RunLog, run: Run) -> Run:
    """A run as the log has it by now."""
    (found,) = log.follow([run.number])
    return found


def outcome_of(run: Run | None) -> Outcome:
    assert run is not None
    assert run.outcome is not None
    return Outcome.from_json(run.outcome)


def code_of(run: Run | None) -> str | None:
    """How a run failed."""
    outcome = outcome_of(run)
    assert outcome.kind == "failed"
    assert outcome.failure is not None
    return outcome.failure.code


def numbers(frames: Sequence[tuple[int, bytes]]) -> list[int]:
    return [number for number, _ in frames]


def everything(log: RunLog, run: Run) -> list[tuple[int, bytes]]:
    found: list[tuple[int, bytes]] = []
    while page := log.frames(run.number, found[-1][0] if found else 0, 1000):
        found += page
    return found
