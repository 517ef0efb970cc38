"""The tables of runs, and what is done with their rows in the caller's transaction."""

from __future__ import annotations

import functools
import secrets
import sqlite3
from collections.abc import Sequence

from sseflask.store.run_api import FRAME_BYTES, Ending, Run, RunAppend
from sseflask.store.sqlite.file import FileFormat, boot_id, is_new

#: Tells the file from other programs' databases ("sse\x02"), and from other versions of itself.
FORMAT = FileFormat(0x73736502, 4)

#: The first number of a file is a random one below this: six bytes.
_NUMBERS = 1 << 46

#: Number of frames that one statement stores.
MAX_FRAMES = 64

#: Bytes after which a page ends.
_PAGE_BYTES = 256 * 1024

#: Frames have places in the order in which they come, and the index is sorted by blocks of about a
#: thousand places. Sorted by runs alone, as many pages would be written to as runs are running.
BLOCK = "place >> 10"

#: The place of the newest frame.
NEWEST = "coalesce((SELECT max(place) FROM frames), 0)"

#: The number of a run's last frame. Its frames are behind ``place`` and, once it has ended, up to
#: ``upto``. The search begins at the end of the file, where the frames of running runs are.
LAST = f"""coalesce(ended - 1, (
    WITH RECURSIVE blocks (block) AS (
        SELECT {NEWEST} >> 10 UNION ALL
        SELECT block - 1 FROM blocks WHERE block > runs.place >> 10 ORDER BY 1 DESC)
    SELECT last FROM (
        SELECT (
            SELECT max(number) FROM frames WHERE {BLOCK} = block AND run = runs.number
        ) AS last FROM blocks)
    WHERE last IS NOT NULL LIMIT 1), 0)"""

#: What a `Run` is made of, in its order.
COLUMNS = f"number, id, label, {LAST}, ended, outcome, notes"

_BLOCKS = f"""WITH RECURSIVE blocks (block) AS (
    SELECT place >> 10 FROM runs WHERE number = :run UNION ALL
    SELECT block + 1 FROM blocks WHERE block <
        coalesce((SELECT upto FROM runs WHERE number = :run), {NEWEST}) >> 10 ORDER BY 1)"""

#: The first frames of ``:run`` after ``:after``, in order: the outer loop is the blocks'.
FRAMES = f"""{_BLOCKS} SELECT number, frame FROM blocks CROSS JOIN frames
    ON {BLOCK} = block AND run = :run AND number > :after LIMIT :limit"""

#: What the last frame of ``:run``, whose number is ``:last``, says of the run up to it.
LAST_FRAME = f"""WITH RECURSIVE blocks (block) AS (
    SELECT {NEWEST} >> 10 UNION ALL
    SELECT block - 1 FROM blocks
        WHERE block > (SELECT place FROM runs WHERE number = :run) >> 10 ORDER BY 1 DESC)
    SELECT size, notes FROM blocks CROSS JOIN frames
    ON {BLOCK} = block AND run = :run AND number = :last LIMIT 1"""

#: Seconds for which a run is kept after its end in any case, as its viewers read its last frames.
READ_SECONDS = 10.0

#: A run that its writer has left, so that others go on with it.
LEFT = "ended IS NULL AND writer = ''"

#: Until when a run is kept whose claim says how long.
KEPT_UNTIL = f"ended_at + max(keep, {READ_SECONDS})"

_SCHEMA = (
    "CREATE TABLE log (boot TEXT NOT NULL, remnant INTEGER NOT NULL)",
    # The processes that may write. The others delete one that they take for dead.
    "CREATE TABLE processes (token TEXT PRIMARY KEY, beat REAL NOT NULL) WITHOUT ROWID",
    # No number is given twice: a late append to a run that is deleted must not hit another run.
    "CREATE TABLE runs (number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,"
    " subject TEXT NOT NULL, account TEXT NOT NULL, label TEXT NOT NULL, key TEXT UNIQUE,"
    " digest BLOB NOT NULL, writer TEXT NOT NULL, place INTEGER NOT NULL, upto INTEGER,"
    " ended INTEGER, outcome BLOB, notes BLOB NOT NULL DEFAULT x'', ended_at REAL, keep REAL,"
    # How others go on with it. Whether one has done so as its writer had died. Since when nobody
    # writes it. If its writer has left, there is none.
    " successor BLOB NOT NULL DEFAULT x'', deaths INTEGER NOT NULL DEFAULT 0, waits_since REAL)",
    "CREATE INDEX runs_running ON runs (account, writer) WHERE ended IS NULL",
    f"CREATE INDEX runs_left ON runs (number) WHERE {LEFT}",
    "CREATE INDEX runs_ended ON runs (ended_at) WHERE ended IS NOT NULL AND keep IS NULL",
    f"CREATE INDEX runs_kept ON runs ({KEPT_UNTIL}) WHERE ended IS NOT NULL AND keep IS NOT NULL",
    # In the order in which they come, so that what many runs write at the same time is written to
    # the same pages. The last frame of a run has the run's size and notes: its end reads one row.
    "CREATE TABLE frames (place INTEGER PRIMARY KEY, run INTEGER NOT NULL,"
    " number INTEGER NOT NULL, size INTEGER NOT NULL, notes BLOB NOT NULL, frame BLOB NOT NULL)",
    f"CREATE INDEX frames_by_run ON frames ({BLOCK}, run, number)",
    # Deleted runs, and the places behind which their frames still are.
    "CREATE TABLE forgotten (run INTEGER PRIMARY KEY, place INTEGER NOT NULL,"
    " upto INTEGER NOT NULL)",
    # Processes other than the writer's that have viewers of a run.
    "CREATE TABLE watchers (run INTEGER NOT NULL, process TEXT NOT NULL,"
    " PRIMARY KEY (run, process)) WITHOUT ROWID",
)


def prepare(database: sqlite3.Connection, path: str, now: float) -> None:
    """Make the tables if there are none. In a write transaction.

    ``now`` is the machine's monotonic time in seconds, which begins at 0 when the machine starts.
    """
    boot = boot_id()
    if is_new(database, path, FORMAT):
        for statement in _SCHEMA:
            database.execute(statement)
        database.execute("INSERT INTO log VALUES (?, 0)", (boot,))
        # Numbers are not given twice in a file that replaces this one either: a process may still
        # have the old file open.
        start = secrets.randbelow(_NUMBERS)
        database.execute("INSERT INTO sqlite_sequence VALUES ('runs', ?)", (start,))
    elif database.execute("SELECT boot FROM log").fetchone() != (boot,):
        database.execute("UPDATE log SET boot = ?", (boot,))
        database.execute("DELETE FROM processes")
        database.execute("DELETE FROM watchers")
        # It is not known how long ago they ended: they are kept for the whole time once more.
        database.execute("UPDATE runs SET ended_at = ? WHERE ended IS NOT NULL", (now,))
        # Nor for how long they have waited.
        database.execute("UPDATE runs SET waits_since = ? WHERE ended IS NULL", (now,))


Row = tuple[int, int, int, bytes, bytes]
"""A run, a frame's number, the size of the run up to it, its notes, and the frame."""


def run_by_number(database: sqlite3.Connection, number: int) -> Run | None:
    row = database.execute(f"SELECT {COLUMNS} FROM runs WHERE number = ?", (number,)).fetchone()
    return Run(*row) if row else None


def rows_of(append: RunAppend) -> list[Row]:
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
    """Store frames of the runs that a process may write. Returns whether it may write all of them.

    One statement, which can be a transaction of its own: each further one would hand the
    interpreter over to the other threads and back. So at most `MAX_FRAMES`.
    """
    if not rows:
        return True
    values = [value for row in rows for value in row]
    return database.execute(_insertion(len(rows)), (*values, writer)).rowcount == len(rows)


@functools.cache
def _insertion(rows: int) -> str:
    # A cross join, so that SQLite looks up the run of each row and not the other way round. NOT
    # INDEXED, so that it finds it by its number alone: to see whether the index of the runs that
    # were left would do, it would prepare the statement anew for each value of the writer.
    values = ", ".join(["(?, ?, ?, ?, ?)"] * rows)
    return (
        "INSERT INTO frames (run, number, size, notes, frame)"
        " SELECT column1, column2, column3, column4, column5"
        f" FROM (VALUES {values}) CROSS JOIN runs NOT INDEXED ON runs.number = column1"
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


def end_run(database: sqlite3.Connection, run: Run, ending: Ending, now: float) -> Run:
    """End a run that goes on, and give it as it is then. In a write transaction."""
    _, notes = last_frame(database, run)
    ended = run.last + 1
    database.execute(
        f"UPDATE runs SET ended = ?, outcome = ?, notes = ?, ended_at = ?, upto = {NEWEST},"
        " key = CASE WHEN ? THEN NULL ELSE key END WHERE number = ?",
        (ended, ending.outcome, notes, now, ending.frees_key and not run.last, run.key),
    )
    # Or each append to any other run would still wake the processes of these watchers.
    database.execute("DELETE FROM watchers WHERE run = ?", (run.key,))
    return run._replace(ended=ended, outcome=ending.outcome, notes=notes)


def last_frame(database: sqlite3.Connection, run: Run) -> tuple[int, bytes]:
    """The size and the notes of a run that goes on, up to its last frame as it was found."""
    if not run.last:
        return 0, b""
    size, notes = database.execute(LAST_FRAME, {"run": run.key, "last": run.last}).fetchone()
    return size, notes
