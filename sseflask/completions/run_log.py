"""The log of runs in an SQLite file, for all processes of one machine.

A run has one writer, which is a process; what a process may do here is decided by the token that it
got, in the same transaction as what it does.
"""

from __future__ import annotations

import functools
import json
import logging
import math
import secrets
import sqlite3
import time
from collections.abc import Callable, Collection, Sequence

from sseflask.channels.log import KeyReused, LogError
from sseflask.channels.sqlite_file import SqliteFile
from sseflask.completions.failures import interrupted
from sseflask.completions.outcome import Outcome
from sseflask.completions.run_ends import end_run
from sseflask.completions.run_entries import Append, Claim, Run, TooMany
from sseflask.completions.run_tables import FRAMES, LAST, NEWEST, PLACES, prepare

__all__ = ["RunLog"]

log = logging.getLogger("sseflask")

#: Seconds without a beat after which a process is taken for dead. Whoever was away for most of that
#: time itself does not judge: perhaps all of them were.
DEAD_SECONDS, _AWAY_SECONDS = 5.0, 3.0

#: Runs that one call of `tick` ends at most: others wait for the file meanwhile.
_BURY_RUNS = 50

#: Seconds for which a beat is new enough to begin a run without another one.
_FRESH_SECONDS = 2.0

#: Bytes after which a page ends.
_PAGE_BYTES = 256 * 1024

#: Runs, and about so many frames, that one call of `trim` forgets at most.
_TRIM_RUNS, _TRIM_FRAMES = 50, 5000

#: Frames that one statement stores.
_MOST_FRAMES = 64

_BEGINNING = (
    "INSERT INTO runs (place, id, subject, account, dialect, key, digest, writer)"
    f" SELECT {NEWEST}, ?, ?, ?, ?, ?, ?, ?"
)
_ORPHANED = "ended IS NULL AND writer NOT IN (SELECT token FROM processes)"
_RUNNING = "(SELECT count(*) FROM runs WHERE ended IS NULL AND account = ?)"
_IN_JSON = "IN (SELECT value FROM json_each(?))"
_COLUMNS = f"number, id, dialect, {LAST}, ended, outcome"
_END_COLUMNS = "number, id, dialect, coalesce(ended - 1, 0), ended, outcome"


class RunLog:
    """Stores runs. Every method may block, and raises `LogError` when the file can't do it.

    All calls come from one thread. Each is a transaction: what it finds and what it does belong
    together, whatever other processes do. Times are the machine's monotonic ones, which all its
    processes share and nobody can put back.

    Args:
        path: the file, made where it is not there; ``":memory:"`` for runs of this process alone.
        seconds: how long a run is kept after its end, and its key with it.
        clock: gives the monotonic time in seconds.
    """

    def __init__(
        self, path: str, *, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._file = SqliteFile(path, "run log")
        self._seconds = seconds
        self._clock = clock
        self._version = -1
        self._last_tick = -DEAD_SECONDS
        self._judges_from = 0.0
        self.token = ""

    # -- the file ----------------------------------------------------------------------------------

    def open(self) -> None:
        """Open the file and enter this process among those that may write."""
        self._version = -1
        self._file.open(lambda database: prepare(database, self._file.path, self._clock()))
        with self._file.writing() as database:
            self._enter(database)

    def close(self) -> None:
        """Close the file. Never an error; who entered is thought dead after a while."""
        self._file.close()

    def changed(self) -> bool:
        """Whether other processes have written since `follow` was called."""
        with self._file.using() as database:
            return bool(database.execute("PRAGMA data_version").fetchone()[0] != self._version)

    def replaced(self) -> bool:
        """Whether there is another file, or none, at the path."""
        return self._file.replaced()

    # -- processes ---------------------------------------------------------------------------------

    def _enter(self, database: sqlite3.Connection) -> None:
        """Be one of those that may write, if this process is not."""
        now = self._clock()
        known = database.execute(
            "UPDATE processes SET beat = ? WHERE token = ?", (now, self.token)
        ).rowcount
        if not known:
            # Others have ended what it wrote, and it may begin anew.
            self.token = secrets.token_hex(8)
            database.execute("INSERT INTO processes VALUES (?, ?)", (self.token, now))

    def tick(self, concerned: bool = True) -> list[Run]:
        """Say that this process lives, and end runs of those that don't; give those runs.

        Where it gives any there may be more.

        Args:
            concerned: it writes runs or has viewers of some; otherwise nothing is written for it.
        """
        now = self._clock()
        away, self._last_tick = now - self._last_tick, now
        try:
            return self._tick(concerned, away <= _AWAY_SECONDS)
        except LogError:
            # The others can't say that they live either, and get some time to do so afterwards.
            self._judges_from = math.inf
            raise

    def _tick(self, concerned: bool, judges: bool) -> list[Run]:
        if concerned or self._judges_from == math.inf:
            with self._file.writing() as database:
                self._enter(database)
        now = self._clock()
        if self._judges_from == math.inf:
            self._judges_from = now + _AWAY_SECONDS
        with self._file.using() as database:
            (gone,) = database.execute(
                "SELECT EXISTS (SELECT 1 FROM processes WHERE beat < ?) OR EXISTS"
                f" (SELECT 1 FROM runs WHERE {_ORPHANED})",
                (now - DEAD_SECONDS,),
            ).fetchone()
        return self._bury() if gone and judges and now >= self._judges_from else []

    def _bury(self) -> list[Run]:
        with self._file.writing() as database:
            dead = database.execute(
                "SELECT token FROM processes WHERE beat < ?", (self._clock() - DEAD_SECONDS,)
            ).fetchall()
            for (token,) in dead:
                database.execute("DELETE FROM watchers WHERE process = ?", (token,))
                database.execute("DELETE FROM processes WHERE token = ?", (token,))
            rows = database.execute(
                f"SELECT {_COLUMNS} FROM runs WHERE {_ORPHANED} LIMIT {_BURY_RUNS}"
            ).fetchall()
            if rows:
                log.warning("another worker is gone or stands still; its completions are ended")
            outcome = Outcome.failed(interrupted())
            return [end_run(database, Run(*row), outcome, self._clock()) for row in rows]

    def leave(self) -> list[Run]:
        """End what this process writes, since it goes; give those runs. It may begin anew.

        It stays among the living until its last beat is old: its viewers have been sent to the
        others, and have not come there yet.
        """
        with self._file.writing() as database:
            rows = database.execute(
                f"SELECT {_COLUMNS} FROM runs WHERE ended IS NULL AND writer = ?", (self.token,)
            ).fetchall()
            outcome = Outcome.failed(interrupted())
            return [end_run(database, Run(*row), outcome, self._clock()) for row in rows]

    # -- runs --------------------------------------------------------------------------------------

    def claim(self, claim: Claim) -> tuple[Run, bool] | KeyReused | TooMany:
        """Begin a run that this process writes, or find the one with the same key.

        Returns:
            the run, and whether it was there before.
        """
        if claim.key is None:
            # The usual case in one statement, for the sake of the first token.
            with self._file.using("written") as database:
                cursor = database.execute(
                    f"{_BEGINNING} WHERE {_RUNNING} < ?"
                    " AND EXISTS (SELECT 1 FROM processes WHERE token = ? AND beat > ?)",
                    (
                        *(*self._values(claim), claim.account, claim.most, self.token),
                        self._clock() - _FRESH_SECONDS,
                    ),
                )
                if cursor.rowcount == 1:
                    return self._fresh(cursor, claim), False
        with self._file.writing() as database:
            if claim.key is not None:
                known = self._known(database, claim.key)
                if known is not None:
                    digest, run = known
                    return (run, True) if digest == claim.digest else KeyReused(claim.key)
            (running,) = database.execute(f"SELECT {_RUNNING}", (claim.account,)).fetchone()
            if running >= claim.most:
                return TooMany(running)
            self._enter(database)
            cursor = database.execute(_BEGINNING, self._values(claim))
            return self._fresh(cursor, claim), False

    def _known(self, database: sqlite3.Connection, key: str) -> tuple[bytes, Run] | None:
        # One that is only still there because nobody has come to forget it loses its key.
        database.execute(
            "UPDATE runs SET key = NULL WHERE key = ? AND ended_at < ?",
            (key, self._clock() - self._seconds),
        )
        row = database.execute(
            f"SELECT digest, {_COLUMNS} FROM runs WHERE key = ?", (key,)
        ).fetchone()
        return None if row is None else (row[0], Run(*row[1:]))

    def _values(self, claim: Claim) -> tuple[str | bytes | None, ...]:
        who = (claim.id, claim.subject, claim.account, claim.dialect)
        return (*who, claim.key, claim.digest, self.token)

    def _fresh(self, cursor: sqlite3.Cursor, claim: Claim) -> Run:
        assert cursor.lastrowid is not None  # it is of the row that was just inserted
        return Run(cursor.lastrowid, claim.id, claim.dialect, 0, None, None)

    def find(self, id: str, subject: str) -> Run | None:
        """Give a run of somebody's; ``None`` where there is none, or it is somebody else's."""
        with self._file.using() as database:
            row = database.execute(
                f"SELECT {_COLUMNS} FROM runs WHERE id = ? AND subject = ?"
                " AND (ended_at IS NULL OR ended_at >= ?)",
                (id, subject, self._clock() - self._seconds),
            ).fetchone()
            return Run(*row) if row else None

    def free_key(self, number: int) -> None:
        """Have a repetition of the request that began a run begin another one."""
        with self._file.using("written") as database:
            database.execute("UPDATE runs SET key = NULL WHERE number = ?", (number,))

    def append(self, appends: Sequence[Append]) -> list[Run | None]:
        """Store what this process writes, each of them whole.

        Returns:
            the run after each of them, ``None`` where this process may not write into it any more:
            somebody has ended it.
        """
        rows = [
            (append.run, number, frame)
            for append in appends
            for number, frame in enumerate(append.frames, append.first)
        ]
        if len(rows) <= _MOST_FRAMES and all(append.outcome is None for append in appends):
            with self._file.using("written") as database:
                stored = self._store(database, rows)
            if stored:
                # Their names are not asked for: nearly all appends are one frame.
                return [Run(each.run, "", "", _last_of(each), None, None) for each in appends]
            with self._file.reading() as database:
                return [self._appended(database, append) for append in appends]
        # All or nothing: what fails is tried again as a whole.
        with self._file.writing() as database:
            for start in range(0, len(rows), _MOST_FRAMES):
                self._store(database, rows[start : start + _MOST_FRAMES])
            return [self._appended(database, append) for append in appends]

    def _store(self, database: sqlite3.Connection, rows: Sequence[tuple[int, int, bytes]]) -> bool:
        """Store frames of the runs that this process may write; whether it may with all of them.

        One statement, which can be a transaction of its own: everything more would hand the
        interpreter over to the other threads and back once more.
        """
        if not rows:
            return True
        values = [value for row in rows for value in row]
        return database.execute(_insertion(len(rows)), (*values, self.token)).rowcount == len(rows)

    def _appended(self, database: sqlite3.Connection, append: Append) -> Run | None:
        """A run after an append; ends it where the append does."""
        row = database.execute(
            f"SELECT writer, {_COLUMNS} FROM runs WHERE number = ?", (append.run,)
        ).fetchone()
        if row is None:
            return None
        writer, run = row[0], Run(*row[1:])
        if append.outcome is not None and run.ended is None and writer == self.token:
            return end_run(database, run, append.outcome, self._clock())
        # What was stored before somebody ended it is as good as everything else.
        return run if append.frames and run.last >= _last_of(append) else None

    def end(self, number: int, outcome: Outcome, *, unless_watched: bool = False) -> Run | None:
        """End a run, whoever writes it; one that has ended stays as it is.

        Args:
            number: the run's.
            outcome: how.
            unless_watched: not where other processes have viewers of it.

        Returns:
            the run, ``None`` where it is forgotten.
        """
        with self._file.writing() as database:
            run = _by_number(database, number)
            if run is None:
                return None
            if run.ended is not None or (unless_watched and self._watched(database, number)):
                return run
            return end_run(database, run, outcome, self._clock())

    # -- readers -----------------------------------------------------------------------------------

    def frames(self, number: int, after: int, limit: int) -> list[tuple[int, bytes]]:
        """Give a run's first frames after one, with their numbers; fewer where they are large."""
        found: list[tuple[int, bytes]] = []
        size = 0
        with self._file.using() as database:
            rows = database.execute(FRAMES, {"run": number, "after": after, "limit": limit})
            for row in rows:
                found.append(row)
                size += len(row[1])
                if size >= _PAGE_BYTES:
                    break
            rows.close()
        return found

    def watch(self, number: int) -> Run | None:
        """Note that this process has viewers of a run, and give it; ``None`` where it is gone."""
        with self._file.writing() as database:
            run = _by_number(database, number)
            if run is None:
                return None
            if run.ended is None:
                self._enter(database)
                database.execute(
                    "INSERT OR IGNORE INTO watchers"
                    " SELECT number, ? FROM runs WHERE number = ? AND writer != ?",
                    (self.token, number, self.token),
                )
            return run

    def unwatch(self, number: int) -> None:
        """Take that back; harmless where it was not noted."""
        with self._file.writing() as database:
            database.execute(
                "DELETE FROM watchers WHERE run = ? AND process = ?", (number, self.token)
            )

    def watched(self, numbers: Collection[int]) -> set[int]:
        """Give those runs of which other processes have viewers."""
        with self._file.reading() as database:
            return {number for number in numbers if self._watched(database, number)}

    def _watched(self, database: sqlite3.Connection, number: int) -> bool:
        row = database.execute(
            "SELECT 1 FROM watchers JOIN processes ON process = token"
            " WHERE run = ? AND token != ? AND beat >= ? LIMIT 1",
            (number, self.token, self._clock() - DEAD_SECONDS),
        ).fetchone()
        return row is not None

    def watched_by_others(self) -> bool:
        """Whether other processes have viewers of anything."""
        with self._file.using() as database:
            row = database.execute(
                "SELECT 1 FROM watchers WHERE process != ? LIMIT 1", (self.token,)
            ).fetchone()
            return row is not None

    def follow(self, numbers: Collection[int], ends: Collection[int] = ()) -> list[Run]:
        """Give what has become of some runs by now; those that are forgotten are missing.

        Args:
            numbers: the runs'.
            ends: those of further ones, of which only the end is told: their ``last`` is 0 before.
                To look for the last frame of a run takes the longer the more have come since then.
        """
        with self._file.reading() as database:
            # Before the rest: what is written meanwhile is then a change again.
            (self._version,) = database.execute("PRAGMA data_version").fetchone()
            return [
                Run(*row)
                for columns, asked in ((_COLUMNS, numbers), (_END_COLUMNS, ends))
                for row in database.execute(
                    f"SELECT {columns} FROM runs WHERE number {_IN_JSON}",
                    (json.dumps(list(asked)),),
                )
            ]

    # -- forgetting --------------------------------------------------------------------------------

    def trim(self) -> int:
        """Forget runs that ended long ago, with their keys; give how many."""
        with self._file.using() as database:
            due = self._forgettable(database, 1)
        if not due:
            return 0
        with self._file.writing() as database:
            forgotten = frames = 0
            (newest,) = database.execute(f"SELECT {NEWEST}").fetchone()
            database.execute(
                "DELETE FROM frames WHERE place = (SELECT remnant FROM log) AND place < ?",
                (newest,),
            )
            for number, last in self._forgettable(database, _TRIM_RUNS):
                self._erase(database, number, newest)
                database.execute("DELETE FROM runs WHERE number = ?", (number,))
                forgotten += 1
                frames += last
                if frames >= _TRIM_FRAMES:
                    break
            return forgotten

    def _erase(self, database: sqlite3.Connection, number: int, newest: int) -> None:
        places = f"place IN ({PLACES})"
        given = {"run": number, "newest": newest}
        database.execute(f"DELETE FROM frames WHERE place != :newest AND {places}", given)
        # The newest place stays taken, or it would be given out again, behind running runs.
        emptied = database.execute(
            "UPDATE frames SET run = 0, number = 0, frame = x''"
            f" WHERE place = :newest AND {places}",
            given,
        ).rowcount
        if emptied:
            database.execute("UPDATE log SET remnant = :newest", given)

    def _forgettable(self, database: sqlite3.Connection, limit: int) -> list[tuple[int, int]]:
        return database.execute(
            f"SELECT number, {LAST} FROM runs WHERE ended IS NOT NULL AND ended_at < ?"
            " ORDER BY ended_at LIMIT ?",
            (self._clock() - self._seconds, limit),
        ).fetchall()


def _by_number(database: sqlite3.Connection, number: int) -> Run | None:
    row = database.execute(f"SELECT {_COLUMNS} FROM runs WHERE number = ?", (number,)).fetchone()
    return Run(*row) if row else None


def _last_of(append: Append) -> int:
    return append.first + len(append.frames) - 1


@functools.cache
def _insertion(rows: int) -> str:
    # A cross join, so that SQLite looks up the run of each row and not the other way round.
    values = ", ".join(["(?, ?, ?)"] * rows)
    return (
        "INSERT INTO frames (run, number, frame) SELECT column1, column2, column3"
        f" FROM (VALUES {values}) CROSS JOIN runs ON runs.number = column1"
        " WHERE writer = ? AND ended IS NULL"
    )
