"""How large a file of runs may be: what is deleted because of its age, and what to make room."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Callable
from typing import NamedTuple

from sseflask.store.api import Extent
from sseflask.store.run_api import FRAME_BYTES, Run, RunLimits
from sseflask.store.sqlite.file import SqliteFile, used_bytes
from sseflask.store.sqlite.run_tables import (
    BLOCK,
    COLUMNS,
    KEPT_UNTIL,
    NEWEST,
    READ_SECONDS,
    last_frame,
)

#: Bytes that a run takes without its frames, about.
RUN_BYTES = 512

#: The part of the limit at which the oldest runs begin to be deleted.
_NEARLY_FULL = 7 / 8

#: How often a process looks how full the file is: after it has stored this many bytes, or the limit
#: divided by this number, whichever is less.
_STEP_BYTES, _STEPS = 1 << 20, 64

#: Numbers of runs, frames, and bytes of frames that one transaction deletes, about: others wait for
#: the file meanwhile.
_RUNS, _FRAMES, _BYTES = 50, 2000, 4 << 20

#: The next runs to be deleted: of those that are kept as long as all, and of the others.
_OLDEST = (
    "FROM runs WHERE ended IS NOT NULL AND keep IS NULL AND ended_at < :before"
    " ORDER BY ended_at, number LIMIT 1",
    f"FROM runs WHERE ended IS NOT NULL AND keep IS NOT NULL AND {KEPT_UNTIL} < :kept_until"
    f" AND ended_at < :ended ORDER BY {KEPT_UNTIL}, number LIMIT 1",
)


class _Due(NamedTuple):
    """Which runs may be deleted: those of which all these times are later than their own."""

    before: float  # their end, if they are kept as long as all
    kept_until: float = math.inf  # until when they are kept, if their claims say that
    ended: float = math.inf  # their end then


#: The first frames of ``:run`` at ``:place`` or behind it, and their bytes.
_PLACES = f"""WITH RECURSIVE blocks (block) AS (
    SELECT :place >> 10 UNION ALL
    SELECT block + 1 FROM blocks WHERE block < :upto >> 10 ORDER BY 1)
    SELECT place, length(frame) FROM blocks CROSS JOIN frames
    ON {BLOCK} = block AND run = :run LIMIT :limit"""


class Space:
    """Bounds a file of runs. What it uses is asked of SQLite, for all processes alike."""

    def __init__(self, file: SqliteFile, limits: RunLimits, clock: Callable[[], float]) -> None:
        self._file = file
        self._limits = limits
        self._clock = clock
        self._step = min(_STEP_BYTES, limits.max_bytes / _STEPS)
        self._looked_at = 0
        self.stored = 0  # bytes, by this process so far, about
        self.full = False  # of running runs, nearly: nothing more is to be begun
        self.overfull = False  # so that the largest of them has to end

    def trim(self) -> int:
        """Delete some of the runs that ended long ago, with their keys. Returns how many."""
        now = self._clock()
        return self._delete(_Due(now - self._limits.seconds, kept_until=now))

    @property
    def is_due(self) -> bool:
        """Whether this process has stored enough since it last looked to call `make` again."""
        return self.stored - self._looked_at >= self._step

    def make(self) -> bool:
        """Delete some of the runs with the earliest ends if the file is nearly full.

        Runs that have just ended are deleted only if it is overfull. Sets `full` and `overfull`,
        and shortens SQLite's write-ahead log. Returns whether to call it again.
        """
        self._looked_at = self.stored
        max_bytes = self._limits.max_bytes
        if max_bytes == math.inf:
            return False
        with self._file.reading() as database:
            used = used_bytes(database)
        # As much as may come before the next look has to fit as well.
        over, nearly = used - max_bytes + self._step, used - max_bytes * _NEARLY_FULL
        if over > 0:
            deleted = self._delete(_Due(math.inf), over + self._step) > 0
        else:
            read = self._clock() - READ_SECONDS  # by their clients
            deleted = nearly > 0 and self._delete(_Due(read, ended=read), nearly) > 0
        self.full = nearly > 0 and not deleted and not self._has_older(_Due(math.inf))
        self.overfull = self.full and over > 0
        self._file.truncate_wal()
        return deleted

    def largest(self) -> int | None:
        """Give the number of the run that goes on and has the most bytes, of any process."""
        with self._file.reading() as database:
            running = database.execute(f"SELECT {COLUMNS} FROM runs WHERE ended IS NULL").fetchall()
            sizes = [(last_frame(database, Run(*row))[0], row[0]) for row in running]
        return max(sizes)[1] if sizes else None

    def extent(self) -> Extent:
        with self._file.reading() as database:
            used = used_bytes(database)
            # Of those that are kept for another time the next one to be forgotten stands for all.
            (first,) = database.execute(
                "SELECT min(ended_at) FROM ("
                "SELECT min(ended_at) AS ended_at FROM runs"
                " WHERE ended IS NOT NULL AND keep IS NULL UNION ALL"
                " SELECT * FROM (SELECT ended_at FROM runs WHERE ended IS NOT NULL"
                f" AND keep IS NOT NULL ORDER BY {KEPT_UNTIL} LIMIT 1))"
            ).fetchone()
        return Extent(used, 0.0 if first is None else max(0.0, self._clock() - first))

    def _has_older(self, due: _Due) -> bool:
        common, kept = _OLDEST
        with self._file.using() as database:
            (found,) = database.execute(
                f"SELECT EXISTS (SELECT 1 FROM forgotten) OR EXISTS (SELECT 1 {common})"
                f" OR EXISTS (SELECT 1 {kept})",
                due._asdict(),
            ).fetchone()
        return bool(found)

    def _delete(self, due: _Due, enough: float = math.inf) -> int:
        """Delete the oldest of the runs that may be deleted; a bounded number, or bytes.

        A run is gone at once, its frames perhaps with the next calls. Returns how many, or 1 if
        only frames were left of what was deleted before.
        """
        if not self._has_older(due):
            return 0
        with self._file.writing() as database:
            return _Deletion(database, enough).delete(due)


class _Deletion:
    """What one transaction deletes."""

    def __init__(self, database: sqlite3.Connection, enough: float) -> None:
        self._database = database
        (self._newest,) = database.execute(f"SELECT {NEWEST}").fetchone()
        self._frames, self._bytes = _FRAMES, min(_BYTES, enough)

    def delete(self, due: _Due) -> int:
        database = self._database
        database.execute(
            "DELETE FROM frames WHERE place = (SELECT remnant FROM log) AND place < ?",
            (self._newest,),
        )
        left = database.execute("SELECT run, place, upto FROM forgotten").fetchall()
        for run, place, upto in left:
            rest = self._delete_frames(run, place, upto)
            if rest is not None:
                database.execute("UPDATE forgotten SET place = ? WHERE run = ?", (rest, run))
                return 1
            database.execute("DELETE FROM forgotten WHERE run = ?", (run,))
        deleted = 0
        while deleted < _RUNS and self._has_budget:
            oldest = self._oldest(due)
            if oldest is None:
                break
            deleted += 1
            run, place, upto = oldest
            self._bytes -= RUN_BYTES
            database.execute("DELETE FROM runs WHERE number = ?", (run,))
            rest = self._delete_frames(run, place, upto)
            if rest is not None:
                database.execute("INSERT INTO forgotten VALUES (?, ?, ?)", (run, rest, upto))
        return deleted or len(left)

    def _oldest(self, due: _Due) -> tuple[int, int, int] | None:
        for which in _OLDEST:
            asked = self._database.execute(f"SELECT number, place, upto {which}", due._asdict())
            found: tuple[int, int, int] | None = asked.fetchone()
            if found is not None:
                return found
        return None

    @property
    def _has_budget(self) -> bool:
        return self._frames > 0 and self._bytes > 0

    def _delete_frames(self, run: int, place: int, upto: int) -> int | None:
        """Delete frames of a run; give where the rest of them begins, ``None`` without a rest."""
        given = {"run": run, "place": place, "upto": upto, "limit": self._frames + 1}
        places: list[int] = []
        rest: int | None = None
        found = self._database.execute(_PLACES, given)
        for at, size in found:
            if not self._has_budget:
                rest = at
                break
            places.append(at)
            self._frames -= 1
            self._bytes -= size + FRAME_BYTES
        found.close()
        self._database.execute(
            "DELETE FROM frames WHERE place IN (SELECT value FROM json_each(?))",
            (json.dumps([each for each in places if each != self._newest]),),
        )
        if self._newest in places:
            # The newest place stays taken, or it would be given out again, behind running runs.
            self._database.execute(
                "UPDATE frames SET run = 0, number = 0, notes = x'', frame = x'' WHERE place = ?",
                (self._newest,),
            )
            self._database.execute("UPDATE log SET remnant = ?", (self._newest,))
        return rest
