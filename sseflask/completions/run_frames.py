"""The frames of runs: stored, read, and forgotten with them. In the caller's transaction."""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Sequence

from sseflask.completions.run_tables import FRAMES, LAST, NEWEST, PLACES

__all__ = ["MOST_FRAMES", "forget_runs", "forgettable", "read_frames", "store_frames"]

#: Frames that one statement stores.
MOST_FRAMES = 64

#: Bytes after which a page ends.
_PAGE_BYTES = 256 * 1024

#: Runs, and about so many frames, that are forgotten at once.
_TRIM_RUNS, _TRIM_FRAMES = 50, 5000


def store_frames(
    database: sqlite3.Connection, rows: Sequence[tuple[int, int, bytes]], writer: str
) -> bool:
    """Store frames of the runs that a process may write; whether it may with all of them.

    One statement, which can be a transaction of its own: everything more would hand the
    interpreter over to the other threads and back once more.

    Args:
        database: the log's.
        rows: runs, the frames' numbers, and the frames; at most `MOST_FRAMES`.
        writer: the token of the process.
    """
    if not rows:
        return True
    values = [value for row in rows for value in row]
    return database.execute(_insertion(len(rows)), (*values, writer)).rowcount == len(rows)


@functools.cache
def _insertion(rows: int) -> str:
    # A cross join, so that SQLite looks up the run of each row and not the other way round.
    values = ", ".join(["(?, ?, ?)"] * rows)
    return (
        "INSERT INTO frames (run, number, frame) SELECT column1, column2, column3"
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


def forgettable(database: sqlite3.Connection, before: float, limit: int) -> list[tuple[int, int]]:
    """Give the oldest runs that ended before some time, with the numbers of their last frames."""
    return database.execute(
        f"SELECT number, {LAST} FROM runs WHERE ended IS NOT NULL AND ended_at < ?"
        " ORDER BY ended_at LIMIT ?",
        (before, limit),
    ).fetchall()


def forget_runs(database: sqlite3.Connection, before: float) -> int:
    """Forget some of the runs that ended before some time, and their frames; give how many."""
    forgotten = frames = 0
    (newest,) = database.execute(f"SELECT {NEWEST}").fetchone()
    database.execute(
        "DELETE FROM frames WHERE place = (SELECT remnant FROM log) AND place < ?", (newest,)
    )
    for number, last in forgettable(database, before, _TRIM_RUNS):
        _erase(database, number, newest)
        database.execute("DELETE FROM runs WHERE number = ?", (number,))
        forgotten += 1
        frames += last
        if frames >= _TRIM_FRAMES:
            break
    return forgotten


def _erase(database: sqlite3.Connection, number: int, newest: int) -> None:
    places = f"place IN ({PLACES})"
    given = {"run": number, "newest": newest}
    database.execute(f"DELETE FROM frames WHERE place != :newest AND {places}", given)
    # The newest place stays taken, or it would be given out again, behind running runs.
    emptied = database.execute(
        f"UPDATE frames SET run = 0, number = 0, frame = x'' WHERE place = :newest AND {places}",
        given,
    ).rowcount
    if emptied:
        database.execute("UPDATE log SET remnant = :newest", given)
