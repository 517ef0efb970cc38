"""The one end of a run: what is stored of it, what it took, and what the server's log says."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from sseflask.completions.outcome import Outcome
from sseflask.completions.usage import Tally, usage_of
from sseflask.counters.counts import COUNTS, LOCK
from sseflask.logs.printable import printable
from sseflask.store.run_api import Run
from sseflask.store.sqlite.run_tables import NEWEST

__all__ = ["Ending", "end_run", "tell_ends", "with_usage"]

log = logging.getLogger("sseflask")


class Ending(NamedTuple):
    """How a run ends.

    Args:
        text: as `Outcome.to_json` gives it.
        passing: it has failed with what may be gone the next time; if nothing was said before, a
            repetition of its request is to begin another run.
    """

    text: str
    passing: bool


def end_run(database: sqlite3.Connection, run: Run, ending: Ending, now: float) -> Run:
    """End a run that goes on.

    Args:
        database: in a write transaction; `tell_ends` after it.
        run: as it is in that.
        ending: how it ends.
        now: the machine's monotonic time.

    Returns:
        the run as it is now.
    """
    ended = run.last + 1
    database.execute(
        f"UPDATE runs SET ended = ?, outcome = ?, ended_at = ?, upto = {NEWEST},"
        " key = CASE WHEN ? THEN NULL ELSE key END WHERE number = ?",
        (ended, ending.text, now, ending.passing and not run.last, run.number),
    )
    # Or every append of every other run would go on to ring for them.
    database.execute("DELETE FROM watchers WHERE run = ?", (run.number,))
    return run._replace(ended=ended, outcome=ending.text)


def with_usage(outcome: Outcome, tally: Tally, dialect: str) -> Ending:
    """Give an outcome with what the run took.

    Parses; not to be called in a transaction, where all workers would wait for it.
    """
    usage = usage_of(tally, dialect, outcome.frame)
    passing = outcome.failure is not None and outcome.failure.may_repeat
    return Ending(replace(outcome, usage=usage).to_json(), passing)


def tell_ends(runs: Iterable[Run]) -> None:
    """Tell the server's log of runs that have been ended, once that is stored."""
    for run in runs:
        outcome = Outcome.from_json(run.outcome or "")
        code = outcome.failure.code or outcome.failure.type if outcome.failure else ""
        how = outcome.finish_reason or code
        with LOCK:
            COUNTS.runs_ended["interrupted" if code == "interrupted" else outcome.kind] += 1
        log.info(
            "run %s: %s%s after %d frames, usage %s",
            run.id,
            outcome.kind,
            f" ({printable(str(how)[:100])})" if how else "",
            run.last,
            json.dumps(outcome.usage),
            extra={"run": run.id, "outcome": outcome.kind, "frames": run.last},
        )
