"""The rows of runs and of their frames: stored, read, ended. In the caller's transaction."""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Sequence

from sseflask.store.run_api import FRAME_BYTES, Append, Ending, Run
from sseflask.store.sqlite.run_tables import COLUMNS, FRAMES, LAST_FRAME, NEWEST

#: Frames that one statement stores.
MAX_FRAMES = 64

#: Bytes after which a page ends.
_PAGE_BYTES = 256 * 1024

Row = tuple[int, int, int, bytes, bytes]
"""A run, a frame's number, the size of the run up to it, its notes, and the frame."""


def run_by_number(database: sqlite3.Connection, number: int) -> Run | None:
    row = database.execute(f"SELECT {COLUMNS} FROM runs WHERE number = ?", (number,)).fetchone()
    return Run(*row) if row else None


def rows_of(append: Append) -> list[Row]:
    size = append.size
    if len(append.frames) == 1:  # nearly all appends
        return [(append.run, append.first, size, append.notes[0], append.frames[0])]
    rows = []
    number = append.last
    for frame, notes in zip(reversed(append.frames), reversed(append.notes), strict=True):
        rows.append((append.run, number, size, notes, frame))
        size -= len(frame) + FRAME_BYTES
        number -= 1
    rows.reverse()
    return rows


def store_frames(database: sqlite3.Connection, rows: Sequence[Row], writer: str) -> bool:
    """Store frames of the runs that a process may write; say whether it may write all of them.

    One statement, which can be a transaction of its own: each further one would hand the
    interpreter over to the other threads and back. So at most `MAX_FRAMES`.
    """
    if not rows:
        return True
    values = [value for row in rows for value in row]
    return database.execute(_insertion(len(rows)), (*values, writer)).rowcount == len(rows)


@functools.cache
def _insertion(rows: int) -> str:
    # A cross join, so that SQLite looks up the run of each row and not the other way round.
    values = ", ".join(["(?, ?, ?, ?, ?)"] * rows)
    return (
        "INSERT INTO frames (run, number, size, notes, frame)"
        " SELECT column1, column2, column3, column4, column5"
        f" FROM (VALUES {values}) CROSS JOIN runs ON runs.number = column1"
        " WHERE writer = ? AND ended IS NULL"
    )


def read_frames(
    database: sqlite3.Connection, number: int, after: int, limit: int
) -> list[tuple[int, bytes]]:
    """Give a run's first frames after one, with their numbers; fewer if they are large."""
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


def size_of_run(database: sqlite3.Connection, run: Run) -> int:
    return _last_frame(database, run)[0]


def end_run(database: sqlite3.Connection, run: Run, ending: Ending, now: float) -> Run:
    """End a run that goes on, and give it as it is then. In a write transaction.

    ``run`` is as it is in the transaction; ``now`` the machine's monotonic time.
    """
    _, notes = _last_frame(database, run)
    ended = run.last + 1
    database.execute(
        f"UPDATE runs SET ended = ?, outcome = ?, notes = ?, ended_at = ?, upto = {NEWEST},"
        " key = CASE WHEN ? THEN NULL ELSE key END WHERE number = ?",
        (ended, ending.outcome, notes, now, ending.frees_key and not run.last, run.key),
    )
    # Or each append to any other run would still wake the processes of these watchers.
    database.execute("DELETE FROM watchers WHERE run = ?", (run.key,))
    return run._replace(ended=ended, outcome=ending.outcome, notes=notes)


def _last_frame(database: sqlite3.Connection, run: Run) -> tuple[int, bytes]:
    if not run.last:
        return 0, b""
    size, notes = database.execute(LAST_FRAME, {"run": run.key, "last": run.last}).fetchone()
    return size, notes
