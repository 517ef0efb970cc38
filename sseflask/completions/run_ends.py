"""The one end of a run: what is stored of it, what it took, and what the server's log says."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Iterable
from dataclasses import replace

from sseflask.completions.outcome import Outcome
from sseflask.completions.run_entries import Run
from sseflask.completions.run_tables import NEWEST
from sseflask.completions.usage import Tally, usage_of

__all__ = ["end_run", "tell_ends", "with_usage"]

log = logging.getLogger("sseflask")


def end_run(database: sqlite3.Connection, run: Run, text: str, now: float) -> Run:
    """End a run that goes on.

    Args:
        database: in a write transaction; `tell_ends` after it.
        run: as it is in that.
        text: how it ends, as `Outcome.to_json` gives it.
        now: the machine's monotonic time.

    Returns:
        the run as it is now.
    """
    ended = run.last + 1
    database.execute(
        f"UPDATE runs SET ended = ?, outcome = ?, ended_at = ?, upto = {NEWEST} WHERE number = ?",
        (ended, text, now, run.number),
    )
    # Or every append of every other run would go on to ring for them.
    database.execute("DELETE FROM watchers WHERE run = ?", (run.number,))
    return run._replace(ended=ended, outcome=text)


def with_usage(outcome: Outcome, tally: Tally, dialect: str) -> str:
    """Give an outcome with what the run took, as `Outcome.to_json` does.

    Parses; not to be called in a transaction, where all workers would wait for it.
    """
    usage = usage_of(tally, dialect, outcome.frame)
    return replace(outcome, usage=usage).to_json()


def tell_ends(runs: Iterable[Run]) -> None:
    """Tell the server's log of runs that have been ended, once that is stored."""
    for run in runs:
        outcome = Outcome.from_json(run.outcome or "")
        code = outcome.failure.code or outcome.failure.type if outcome.failure else ""
        how = outcome.finish_reason or code
        log.info(
            "run %s: %s%s after %d frames, usage %s",
            run.id,
            outcome.kind,
            f" ({_printable(how)})" if how else "",
            run.last,
            json.dumps(outcome.usage),
        )


def _printable(said: object) -> str:
    """What an upstream has said, on the one line of a log."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(said)[:100])
