"""The log of runs in an SQLite file, for all processes of one machine.

A run has one writer, which is a process; what a process may do here is decided by the token that it
got, in the same transaction as what it does.
"""

from __future__ import annotations

import json
import math
import sqlite3
import time
from collections.abc import Callable, Collection, Sequence

from sseflask.completions.outcome import Outcome
from sseflask.store.api import Extent, KeyReused
from sseflask.store.run_api import Append, Claim, LogFull, Run, TooMany
from sseflask.store.sqlite.file import SqliteFile
from sseflask.store.sqlite.leases import Peers
from sseflask.store.sqlite.run_appends import Appends
from sseflask.store.sqlite.run_ends import end_run, tell_ends, with_usage
from sseflask.store.sqlite.run_frames import read_frames, read_tally
from sseflask.store.sqlite.run_retention import RUN_BYTES
from sseflask.store.sqlite.run_space import Room
from sseflask.store.sqlite.run_tables import COLUMNS, NEWEST, prepare, run_by_number

__all__ = ["RunLog"]

#: Attempts to end a run that somebody else goes on writing meanwhile, with exactly what it took.
_ATTEMPTS = 3

#: Seconds for which a beat is new enough to begin a run without another one.
_FRESH_SECONDS = 2.0

_BEGINNING = (
    "INSERT INTO runs (place, id, subject, account, dialect, key, digest, writer)"
    f" SELECT {NEWEST}, ?, ?, ?, ?, ?, ?, ?"
)
_RUNNING = "(SELECT count(*) FROM runs WHERE ended IS NULL AND account = ?)"
_IN_JSON = "IN (SELECT value FROM json_each(?))"
_END_COLUMNS = "number, id, dialect, coalesce(ended - 1, 0), ended, outcome"


class RunLog:
    """Stores runs. Every method may block, and raises `StoreError` when the file can't do it.

    All calls come from one thread. Each is a transaction: what it finds and what it does belong
    together, whatever other processes do. Times are the machine's monotonic ones, which all its
    processes share and nobody can put back.

    Args:
        path: the file, made where it is not there; ``":memory:"`` for runs of this process alone.
        seconds: how long a run is kept after its end, and its key with it.
        most_bytes: how large the log may grow: the runs that ended first are forgotten before, and
            if that is not enough, those that go on have to end.
        clock: gives the monotonic time in seconds.
    """

    def __init__(
        self,
        path: str,
        *,
        seconds: float,
        most_bytes: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._file = SqliteFile(path, "run log")
        self._seconds = seconds
        self._clock = clock
        self._version = -1
        self._peers = Peers(self._file, clock)
        self._appends = Appends(self._file, self._peers, clock)
        self._room = Room(self._file, clock, seconds=seconds, most_bytes=most_bytes)

    @property
    def token(self) -> str:
        """What this process writes under; another one when it was taken for dead."""
        return self._peers.token

    # -- the file ----------------------------------------------------------------------------------

    def open(self) -> None:
        """Open the file and enter this process among those that may write."""
        self._version = -1
        self._file.open(lambda database: prepare(database, self._file.path, self._clock()))
        with self._file.writing() as database:
            self._peers.enter(database)

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

    def tick(self, concerned: bool = True) -> list[Run]:
        """Say that this process lives, and end runs of those that don't; give those runs.

        Where it gives any there may be more.

        Args:
            concerned: it writes runs or has viewers of some; otherwise nothing is written for it.
        """
        return self._peers.tick(concerned)

    def leave(self) -> list[Run]:
        """End what this process writes, since it goes; give those runs. It may begin anew.

        It stays among the living until its last beat is old: its viewers have been sent to the
        others, and have not come there yet.
        """
        return self._peers.leave()

    # -- runs --------------------------------------------------------------------------------------

    def claim(self, claim: Claim) -> tuple[Run, bool] | KeyReused | TooMany:
        """Begin a run that this process writes, or find the one with the same key.

        Returns:
            the run, and whether it was there before.

        Raises:
            LogFull: what is running fills it.
        """
        full = self._room.full
        if full:
            self.make_room()
            full = self._room.full
        if claim.key is None and not full:
            # The usual case in one statement, for the sake of the first token.
            with self._file.using("written") as database:
                cursor = database.execute(
                    f"{_BEGINNING} WHERE {_RUNNING} < ?"
                    " AND EXISTS (SELECT 1 FROM processes WHERE token = ? AND beat > ?)",
                    (
                        *(*self._values(claim), claim.account, claim.most, self._peers.token),
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
            if full:
                raise LogFull(f"the run log {self._file.path} is full of what is running")
            (running,) = database.execute(f"SELECT {_RUNNING}", (claim.account,)).fetchone()
            if running >= claim.most:
                return TooMany(running)
            self._peers.enter(database)
            cursor = database.execute(_BEGINNING, self._values(claim))
            return self._fresh(cursor, claim), False

    def _known(self, database: sqlite3.Connection, key: str) -> tuple[bytes, Run] | None:
        # One that is only still there because nobody has come to forget it loses its key.
        database.execute(
            "UPDATE runs SET key = NULL WHERE key = ? AND ended_at < ?",
            (key, self._clock() - self._seconds),
        )
        row = database.execute(
            f"SELECT digest, {COLUMNS} FROM runs WHERE key = ?", (key,)
        ).fetchone()
        return None if row is None else (row[0], Run(*row[1:]))

    def _values(self, claim: Claim) -> tuple[str | bytes | None, ...]:
        who = (claim.id, claim.subject, claim.account, claim.dialect)
        return (*who, claim.key, claim.digest, self._peers.token)

    def _fresh(self, cursor: sqlite3.Cursor, claim: Claim) -> Run:
        self._appends.stored += RUN_BYTES
        assert cursor.lastrowid is not None  # it is of the row that was just inserted
        return Run(cursor.lastrowid, claim.id, claim.dialect, 0, None, None)

    def find(self, id: str, subject: str) -> Run | None:
        """Give a run of somebody's; ``None`` where there is none, or it is somebody else's."""
        with self._file.using() as database:
            row = database.execute(
                f"SELECT {COLUMNS} FROM runs WHERE id = ? AND subject = ?"
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
        return self._appends.append(appends)

    def end(self, number: int, outcome: Outcome, *, unless_watched: bool = False) -> Run | None:
        """End a run, whoever writes it; one that has ended stays as it is.

        Args:
            number: the run's.
            outcome: how.
            unless_watched: not where other processes have viewers of it.

        Returns:
            the run, ``None`` where it is forgotten.
        """
        for attempt in range(_ATTEMPTS):
            with self._file.reading() as database:
                found = run_by_number(database, number)
                if found is None or found.ended is not None:
                    return found
                tally = read_tally(database, found)
            ending = with_usage(outcome, tally, found.dialect)
            with self._file.writing() as database:
                run = run_by_number(database, number)
                if run is None or run.ended is not None:
                    return run
                if unless_watched and self._peers.is_watched(database, number):
                    return run
                if run.last != found.last and attempt + 1 < _ATTEMPTS:
                    continue
                ended = end_run(database, run, ending, self._clock())
            tell_ends([ended])
            return ended
        raise AssertionError("the last attempt ends it")

    # -- readers -----------------------------------------------------------------------------------

    def frames(self, number: int, after: int, limit: int) -> list[tuple[int, bytes]]:
        """Give a run's first frames after one, with their numbers; fewer where they are large."""
        with self._file.using() as database:
            return read_frames(database, number, after, limit)

    def watch(self, number: int) -> Run | None:
        """Note that this process has viewers of a run, and give it; ``None`` where it is gone."""
        return self._peers.watch(number)

    def unwatch(self, number: int) -> None:
        """Take that back; harmless where it was not noted."""
        self._peers.unwatch(number)

    def watched(self, numbers: Collection[int]) -> set[int]:
        """Give those runs of which other processes have viewers."""
        return self._peers.watched(numbers)

    def watched_by_others(self) -> bool:
        """Whether other processes have viewers of anything."""
        return self._peers.watched_by_others()

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
                for columns, asked in ((COLUMNS, numbers), (_END_COLUMNS, ends))
                for row in database.execute(
                    f"SELECT {columns} FROM runs WHERE number {_IN_JSON}",
                    (json.dumps(list(asked)),),
                )
            ]

    # -- forgetting --------------------------------------------------------------------------------

    def trim(self) -> int:
        """Forget some of the runs that ended long ago, with their keys; give how many."""
        self._appends.drop_ended()
        return self._room.trim()

    @property
    def has_grown(self) -> bool:
        """Whether so much has been stored by this process since `make_room` that it is due."""
        return self._room.is_due(self._appends.stored)

    @property
    def overfull(self) -> bool:
        """Whether what is running fills it, as `make_room` found: the largest run has to end."""
        return self._room.overfull

    def make_room(self) -> bool:
        """Forget some of the runs that ended first if the log is nearly full.

        Returns:
            whether there may be more to forget.
        """
        return self._room.make(self._appends.stored)

    def largest(self) -> int | None:
        """See `Room.largest`."""
        return self._room.largest()

    def extent(self) -> Extent:
        """See `Room.extent`."""
        return self._room.extent()
