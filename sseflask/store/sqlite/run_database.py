"""Runs in an SQLite file. Each has one writer, a process.

What a process may do is decided by its lease, in the same transaction as what it does.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Collection, Sequence

from sseflask.store.api import Extent, KeyReused
from sseflask.store.run_api import (
    Claim,
    Ending,
    Run,
    RunAppend,
    RunLimits,
    StoreFull,
    TooMany,
)
from sseflask.store.sqlite import run_tables as tables
from sseflask.store.sqlite.file import SqliteFile
from sseflask.store.sqlite.leases import WAIT_SECONDS, Leases
from sseflask.store.sqlite.run_space import RUN_BYTES, Space
from sseflask.store.sqlite.run_tables import COLUMNS, MAX_FRAMES, NEWEST

#: Seconds for which a beat is new enough to begin a run without another one.
_FRESH_SECONDS = 2.0

_INSERTION = (
    "INSERT INTO runs (place, id, subject, account, label, key, digest, keep, successor, writer)"
    f" SELECT {NEWEST}, ?, ?, ?, ?, ?, ?, ?, ?, ?"
)
_RUNNING = "(SELECT count(*) FROM runs WHERE ended IS NULL AND account = ?)"
_IN_JSON = "IN (SELECT value FROM json_each(?))"
_END_COLUMNS = "number, id, label, coalesce(ended - 1, 0), ended, outcome, notes"


class RunDatabase(SqliteFile):
    """Stores runs. Each call is a transaction, whatever other processes do.

    Times are of the machine's monotonic clock, which all its processes share.
    """

    def __init__(
        self,
        path: str,
        limits: RunLimits,
        interrupted: Ending,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(path, "run store")
        self._seconds = limits.seconds
        self._clock = clock
        wait_seconds = max(limits.seconds, WAIT_SECONDS)
        self.leases = Leases(self, interrupted, wait_seconds, clock)
        self.space = Space(self, limits, clock)

    def _prepare(self, database: sqlite3.Connection) -> None:
        tables.prepare(database, self.path, self._clock())
        self.leases.enter(database)

    def trim(self) -> int:
        return self.space.trim()

    def extent(self) -> Extent:
        return self.space.extent()

    # -- runs --------------------------------------------------------------------------------------

    def claim(self, claim: Claim) -> tuple[Run, bool] | KeyReused | TooMany:
        if self.space.full:
            self.space.make()
        full = self.space.full
        if claim.key is None and not full:
            # The usual case in one statement, for the sake of the first token.
            with self.using("written") as database:
                cursor = database.execute(
                    f"{_INSERTION} WHERE {_RUNNING} < ?"
                    " AND EXISTS (SELECT 1 FROM processes WHERE token = ? AND beat > ?)",
                    (
                        *self._values(claim),
                        *(claim.account, claim.max_running, self.leases.token),
                        self._clock() - _FRESH_SECONDS,
                    ),
                )
                if cursor.rowcount == 1:
                    return self._fresh(cursor, claim), False
        with self.writing() as database:
            if claim.key is not None:
                known = self._known(database, claim.key)
                if known is not None:
                    digest, run = known
                    return (run, True) if digest == claim.digest else KeyReused(claim.key)
            if full:
                raise StoreFull(f"the run store {self.path} is full of what is running")
            (running,) = database.execute(f"SELECT {_RUNNING}", (claim.account,)).fetchone()
            if running >= claim.max_running:
                return TooMany(running)
            self.leases.enter(database)
            cursor = database.execute(_INSERTION, self._values(claim))
            return self._fresh(cursor, claim), False

    def _known(self, database: sqlite3.Connection, key: str) -> tuple[bytes, Run] | None:
        # A run that is to be deleted loses its key now.
        database.execute(
            "UPDATE runs SET key = NULL WHERE key = ? AND ended_at + coalesce(keep, ?) < ?",
            (key, self._seconds, self._clock()),
        )
        row = database.execute(
            f"SELECT digest, {COLUMNS} FROM runs WHERE key = ?", (key,)
        ).fetchone()
        return None if row is None else (row[0], Run(*row[1:]))

    def _values(self, claim: Claim) -> tuple[str | bytes | float | None, ...]:
        owner = (claim.id, claim.subject, claim.account, claim.label)
        life = (claim.keep, claim.successor, self.leases.token)
        return (*owner, claim.key, claim.digest, *life)

    def _fresh(self, cursor: sqlite3.Cursor, claim: Claim) -> Run:
        self.space.stored += RUN_BYTES
        return Run(cursor.lastrowid, claim.id, claim.label, 0)

    def find(self, id: str, subject: str) -> Run | None:
        with self.using() as database:
            row = database.execute(
                f"SELECT {COLUMNS} FROM runs WHERE id = ? AND subject = ?"
                " AND (ended_at IS NULL OR ended_at + coalesce(keep, ?) >= ?)",
                (id, subject, self._seconds, self._clock()),
            ).fetchone()
            return Run(*row) if row else None

    def append(self, appends: Sequence[RunAppend]) -> tuple[list[RunAppend], list[Run]]:
        """Store what this process writes, each append whole.

        Returns the appends that are refused because the run has another writer, or has ended; and
        the runs that the other appends have ended.
        """
        rows = [row for append in appends for row in tables.rows_of(append)]
        ends = [append for append in appends if append.ending is not None]
        refused: list[RunAppend] = []
        ended: list[Run] = []
        if len(rows) <= MAX_FRAMES and not ends:
            with self.using("written") as database:
                stored = tables.store_frames(database, rows, self.leases.token)
            if not stored:
                with self.reading() as database:
                    refused = [each for each in appends if not self._is_stored(database, each)]
        else:
            # All or nothing: a group that fails is tried again as a whole.
            with self.writing() as database:
                stored = True
                for at in range(0, len(rows), MAX_FRAMES):
                    some = rows[at : at + MAX_FRAMES]
                    stored &= tables.store_frames(database, some, self.leases.token)
                for append in appends:
                    run = self._end(database, append)
                    if run is not None:
                        ended.append(run)
                    elif append.ending or not (stored or self._is_stored(database, append)):
                        refused.append(append)
        self.space.stored += sum(append.added for append in appends)
        return refused, ended

    def _end(self, database: sqlite3.Connection, append: RunAppend) -> Run | None:
        if append.ending is None:
            return None
        row = database.execute(
            f"SELECT {COLUMNS} FROM runs WHERE number = ? AND ended IS NULL AND writer = ?",
            (append.run, self.leases.token),
        ).fetchone()
        return tables.end_run(database, Run(*row), append.ending, self._clock()) if row else None

    def _is_stored(self, database: sqlite3.Connection, append: RunAppend) -> bool:
        """Whether the frames of an append are there, although its run may have been ended since."""
        run = tables.run_by_number(database, append.run)
        return run is not None and bool(append.frames) and run.last >= append.last

    def end(
        self,
        number: int,
        ending: Ending,
        *,
        unless_attached: bool = False,
        unless_passed_on: bool = False,
    ) -> tuple[Run | None, bool]:
        """End a run, whatever process writes it; one that has ended stays as it is.

        Args:
            unless_attached: not if other processes have viewers of it.
            unless_passed_on: not if another process goes on with it, or will.

        Returns:
            The run, ``None`` if it is forgotten; and whether it was ended by this call.
        """
        with self.writing() as database:
            run = tables.run_by_number(database, number)
            if run is None or run.ended is not None:
                return run, False
            if unless_attached and self.leases.is_attached_elsewhere(database, number):
                return run, False
            if unless_passed_on and self.leases.is_passed_on(database, number):
                return run, False
            return tables.end_run(database, run, ending, self._clock()), True

    # -- readers -----------------------------------------------------------------------------------

    def frames(self, number: int, after: int, limit: int) -> list[tuple[int, bytes]]:
        with self.using() as database:
            return tables.read_frames(database, number, after, limit)

    def follow(self, numbers: Collection[int], ends: Collection[int] = ()) -> list[Run]:
        """Give what has become of some runs by now; those that are forgotten are missing.

        Of ``ends`` only the end is wanted, and ``last`` is 0 before it: finding a run's last frame
        takes longer, the more frames other runs have stored since.
        """
        with self.reading() as database:
            self._note_version(database)
            return [
                Run(*row)
                for columns, wanted in ((COLUMNS, numbers), (_END_COLUMNS, ends))
                for row in database.execute(
                    f"SELECT {columns} FROM runs WHERE number {_IN_JSON}",
                    (json.dumps(list(wanted)),),
                )
            ]
