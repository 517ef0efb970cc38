"""Runs that are forgotten with their frames, piece by piece: others wait for the file meanwhile."""

from __future__ import annotations

import json
import math
import sqlite3

from sseflask.store.run_api import FRAME_BYTES
from sseflask.store.sqlite.run_tables import BLOCK, NEWEST

__all__ = ["RUN_BYTES", "forget_runs", "is_forgettable", "used_bytes"]

#: What the log takes for a run without frames, about.
RUN_BYTES = 512

#: Runs, frames, and bytes of frames, that one transaction forgets, about.
_RUNS, _FRAMES, _BYTES = 50, 2000, 4 << 20

_OLDEST = (
    "FROM runs WHERE ended IS NOT NULL AND ended_at < :before ORDER BY ended_at, number LIMIT 1"
)

#: The first frames of ``:run`` at ``:place`` or behind it, and their bytes.
_PLACES = f"""WITH RECURSIVE blocks (block) AS (
    SELECT :place >> 10 UNION ALL
    SELECT block + 1 FROM blocks WHERE block < :upto >> 10 ORDER BY 1)
    SELECT place, length(frame) FROM blocks CROSS JOIN frames
    ON {BLOCK} = block AND run = :run LIMIT :limit"""


def used_bytes(database: sqlite3.Connection) -> int:
    """Give what the log takes of its file, in bytes; the rest of that is free, and used again."""
    (pages,) = database.execute("PRAGMA page_count").fetchone()
    (free,) = database.execute("PRAGMA freelist_count").fetchone()
    (size,) = database.execute("PRAGMA page_size").fetchone()
    used: int = (pages - free) * size
    return used


def is_forgettable(database: sqlite3.Connection, before: float) -> bool:
    """Whether `forget_runs` would do anything."""
    row = database.execute(
        f"SELECT EXISTS (SELECT 1 FROM forgotten) OR EXISTS (SELECT 1 {_OLDEST})",
        {"before": before},
    ).fetchone()
    return bool(row[0])


def forget_runs(database: sqlite3.Connection, before: float, too_much: float = math.inf) -> int:
    """Forget the oldest of the runs that ended before some time; a bounded number.

    A run is forgotten at once, its frames perhaps by the next calls. In a write transaction.

    Args:
        database: the log's.
        before: the time.
        too_much: bytes that are enough.

    Returns:
        how many, or 1 where only frames were left of what was forgotten before.
    """
    (newest,) = database.execute(f"SELECT {NEWEST}").fetchone()
    database.execute(
        "DELETE FROM frames WHERE place = (SELECT remnant FROM log) AND place < ?", (newest,)
    )
    eraser = _Eraser(database, newest, too_much)
    left = database.execute("SELECT run, place, upto FROM forgotten").fetchall()
    for run, place, upto in left:
        reached = eraser.erase(run, place, upto)
        if reached is not None:
            database.execute("UPDATE forgotten SET place = ? WHERE run = ?", (reached, run))
            return 1
        database.execute("DELETE FROM forgotten WHERE run = ?", (run,))
    forgotten = 0
    while forgotten < _RUNS and eraser.has_budget:
        oldest = database.execute(
            f"SELECT number, place, upto {_OLDEST}", {"before": before}
        ).fetchone()
        if oldest is None:
            break
        forgotten += 1
        run, place, upto = oldest
        eraser.take(RUN_BYTES)
        database.execute("DELETE FROM runs WHERE number = ?", (run,))
        reached = eraser.erase(run, place, upto)
        if reached is not None:
            database.execute("INSERT INTO forgotten VALUES (?, ?, ?)", (run, reached, upto))
    return forgotten or len(left)


class _Eraser:
    """Erases frames, until there have been enough for one transaction."""

    def __init__(self, database: sqlite3.Connection, newest: int, too_much: float) -> None:
        self._database = database
        self._newest = newest
        self._frames, self._bytes = _FRAMES, min(_BYTES, too_much)

    def take(self, size: int) -> None:
        """Count what is deleted beside frames."""
        self._bytes -= size

    @property
    def has_budget(self) -> bool:
        return self._frames > 0 and self._bytes > 0

    def erase(self, run: int, place: int, upto: int) -> int | None:
        """Erase frames of a run; give where the rest of them begins, ``None`` without a rest."""
        given = {"run": run, "place": place, "upto": upto, "limit": self._frames + 1}
        places: list[int] = []
        rest: int | None = None
        found = self._database.execute(_PLACES, given)
        for at, size in found:
            if not self.has_budget:
                rest = at
                break
            places.append(at)
            self._frames -= 1
            self._bytes -= size + FRAME_BYTES
        found.close()
        emptied = self._newest in places
        self._database.execute(
            "DELETE FROM frames WHERE place IN (SELECT value FROM json_each(?))",
            (json.dumps([each for each in places if each != self._newest]),),
        )
        if emptied:
            # The newest place stays taken, or it would be given out again, behind running runs.
            self._database.execute(
                "UPDATE frames SET run = 0, number = 0, notes = x'', frame = x'' WHERE place = ?",
                (self._newest,),
            )
            self._database.execute("UPDATE log SET remnant = ?", (self._newest,))
        return rest
