"""The one end of a run: what is stored of it, what it took, and what the server's log says."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from sseflask.completions.outcome import Outcome
from sseflask.completions.run_entries import Run
from sseflask.completions.run_tables import FRAMES, NEWEST
from sseflask.completions.usage import usage_of

__all__ = ["end_run", "tell_ends"]

log = logging.getLogger("sseflask")

#: Where an upstream says what the answer took: in one of the last frames, if at all.
_LAST_FRAMES = 4


def end_run(database: sqlite3.Connection, run: Run, outcome: Outcome, now: float) -> Run:
    """End a run that goes on.

    Args:
        database: in a write transaction; `tell_ends` after it.
        run: as it is in that.
        outcome: how it ends; without its usage, which is found here.
        now: the machine's monotonic time.

    Returns:
        the run as it is now.
    """
    outcome = replace(outcome, usage=_usage(database, run, outcome))
    ended, text = run.last + 1, outcome.to_json()
    database.execute(
        f"UPDATE runs SET ended = ?, outcome = ?, ended_at = ?, upto = {NEWEST} WHERE number = ?",
        (ended, text, now, run.number),
    )
    # Or every append of every other run would go on to ring for them.
    database.execute("DELETE FROM watchers WHERE run = ?", (run.number,))
    return run._replace(ended=ended, outcome=text)


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


def _usage(database: sqlite3.Connection, run: Run, outcome: Outcome) -> dict[str, Any] | None:
    """What it took, as the upstream has said; else what was streamed, marked as partial."""
    if not run.last and outcome.frame is None:
        return None
    for after in [run.last - _LAST_FRAMES, 0] if run.last > _LAST_FRAMES else [0]:
        rows = database.execute(FRAMES, {"run": run.number, "after": after, "limit": -1})
        usage = usage_of((frame for _, frame in rows), run.dialect, outcome.frame)
        if not usage.get("partial"):
            break
    return usage


def _printable(said: object) -> str:
    """What an upstream has said, on the one line of a log."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(said)[:100])
