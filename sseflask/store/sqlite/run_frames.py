"""The frames of runs, stored and read. In the caller's transaction."""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Sequence

from sseflask.completions.usage import Tally
from sseflask.store.run_api import Run
from sseflask.store.sqlite.run_tables import FRAMES, MARKS

__all__ = ["MOST_FRAMES", "Row", "read_frames", "read_tally", "store_frames"]

#: Frames that one statement stores.
MOST_FRAMES = 64

#: Bytes after which a page ends.
_PAGE_BYTES = 256 * 1024

Row = tuple[int, int, int, int, int, bytes]
"""A run, a frame's number, what there is of the run up to it (see `Tally`), and the frame."""


def store_frames(database: sqlite3.Connection, rows: Sequence[Row], writer: str) -> bool:
    """Store frames of the runs that a process may write; whether it may with all of them.

    One statement, which can be a transaction of its own: everything more would hand the
    interpreter over to the other threads and back once more.

    Args:
        database: the log's.
        rows: at most `MOST_FRAMES`.
        writer: the token of the process.
    """
    if not rows:
        return True
    values = [value for row in rows for value in row]
    return database.execute(_insertion(len(rows)), (*values, writer)).rowcount == len(rows)


@functools.cache
def _insertion(rows: int) -> str:
    # A cross join, so that SQLite looks up the run of each row and not the other way round.
    values = ", ".join(["(?, ?, ?, ?, ?, ?)"] * rows)
    return (
        "INSERT INTO frames (run, number, size, said, told, frame)"
        " SELECT column1, column2, column3, column4, column5, column6"
        f" FROM (VALUES {values}) CROSS JOIN runs ON runs.number = column1"
        " WHERE writer = ? AND ended IS NULL"
    )


def read_frames(
    database: sqlite3.Connection, number: int, after: int, limit: int
) -> list[tuple[int, bytes]]:
    """Give a run's first frames after one, with their numbers; fewer where they are large."""
    found: list[tuple[int, bytes]] = []
    size = 0
    rows = database.execute(FRAMES, {"run": number, "after": after, "limit": limit})
    for row in rows:
        found.append(row)
        size += len(row[1])
        if size >= _PAGE_BYTES:
            break
    rows.close()
    return found


def read_tally(database: sqlite3.Connection, run: Run) -> Tally:
    """Give what there is of a run that goes on, up to its last frame as it was found."""
    if not run.last:
        return Tally()
    row = database.execute(MARKS, {"run": run.number, "last": run.last}).fetchone()
    tally = Tally(run.last, *row)
    if tally.told:
        ((_, tally.telling),) = read_frames(database, run.number, tally.told - 1, 1)
    return tally
