"""The processes that use a file of runs: which are alive, which have viewers, what dead ones left.

A process gets a token when it enters, its lease, which decides what it may write. A process that
has not said for some seconds that it is alive is deleted by another one, which ends its runs.
"""

from __future__ import annotations

import logging
import math
import secrets
import sqlite3
from collections.abc import Callable, Collection

from sseflask.store.api import StoreError
from sseflask.store.run_api import Ending, Run
from sseflask.store.sqlite.file import SqliteFile
from sseflask.store.sqlite.run_tables import COLUMNS, end_run, run_by_number

log = logging.getLogger("sseflask")

#: Seconds without a sign of life after which a process is taken for dead. A process that itself
#: stood still for most of that time ends none: perhaps all processes did.
DEAD_SECONDS, _AWAY_SECONDS = 5.0, 3.0

#: Number of runs that one transaction ends at most: others wait for the file meanwhile.
_END_RUNS = 50

_ORPHANED = "ended IS NULL AND writer NOT IN (SELECT token FROM processes)"


class Leases:
    """This process among those that share a file of runs."""

    def __init__(self, file: SqliteFile, interrupted: Ending, clock: Callable[[], float]) -> None:
        self._file = file
        self._interrupted = interrupted
        self._clock = clock
        self._last_tick = -DEAD_SECONDS
        self._may_end_others_from = 0.0
        self.token = ""  # what this process writes under; another one when it was taken for dead

    # -- which are alive ---------------------------------------------------------------------------

    def enter(self, database: sqlite3.Connection) -> None:
        """Be one of those that may write, if this process is not. In a write transaction."""
        now = self._clock()
        known = database.execute(
            "UPDATE processes SET beat = ? WHERE token = ?", (now, self.token)
        ).rowcount
        if not known:
            # Others have ended what it wrote, and it may begin anew.
            self.token = secrets.token_hex(8)
            database.execute("INSERT INTO processes VALUES (?, ?)", (self.token, now))

    def tick(self, in_use: bool = True) -> list[Run]:
        """Say that this process is alive, and end some runs of dead ones. Returns those runs.

        ``in_use``: it writes runs or has viewers. Otherwise it does not say that it is alive.
        """
        now = self._clock()
        away, self._last_tick = now - self._last_tick, now
        try:
            return self._tick(in_use, away <= _AWAY_SECONDS)
        except StoreError:
            # The others can't say that they are alive either, and get time for it afterwards.
            self._may_end_others_from = math.inf
            raise

    def _tick(self, in_use: bool, may_end_others: bool) -> list[Run]:
        if in_use or self._may_end_others_from == math.inf:
            with self._file.writing() as database:
                self.enter(database)
        now = self._clock()
        if self._may_end_others_from == math.inf:
            self._may_end_others_from = now + _AWAY_SECONDS
        with self._file.using() as database:
            (gone,) = database.execute(
                "SELECT EXISTS (SELECT 1 FROM processes WHERE beat < ?) OR EXISTS"
                f" (SELECT 1 FROM runs WHERE {_ORPHANED})",
                (now - DEAD_SECONDS,),
            ).fetchone()
        if gone and may_end_others and now >= self._may_end_others_from:
            return self._end_dead_processes()
        return []

    def _end_dead_processes(self) -> list[Run]:
        with self._file.writing() as database:
            dead = database.execute(
                "SELECT token FROM processes WHERE beat < ?", (self._clock() - DEAD_SECONDS,)
            ).fetchall()
            for (token,) in dead:
                database.execute("DELETE FROM watchers WHERE process = ?", (token,))
                database.execute("DELETE FROM processes WHERE token = ?", (token,))
        ended = self._interrupt(_ORPHANED)
        if ended:
            log.warning("another worker is gone or stands still; its runs are ended")
        return ended

    def leave(self) -> list[Run]:
        """End what this process writes, since it goes. Returns those runs. It may begin anew.

        It counts as alive for some seconds more, in which its viewers reconnect elsewhere.
        """
        ended: list[Run] = []
        while some := self._interrupt("ended IS NULL AND writer = ?", self.token):
            ended += some
        return ended

    def _interrupt(self, which: str, *values: str) -> list[Run]:
        choice = f"SELECT {COLUMNS} FROM runs WHERE {which} LIMIT {_END_RUNS}"
        with self._file.writing() as database:
            runs = [Run(*row) for row in database.execute(choice, values)]
            return [end_run(database, run, self._interrupted, self._clock()) for run in runs]

    # -- which have viewers ------------------------------------------------------------------------

    def attach(self, number: int) -> Run | None:
        """Note that this process has viewers of a run, and return it; ``None`` if it is gone."""
        with self._file.writing() as database:
            run = run_by_number(database, number)
            if run is None:
                return None
            if run.ended is None:
                self.enter(database)
                database.execute(
                    "INSERT OR IGNORE INTO watchers"
                    " SELECT number, ? FROM runs WHERE number = ? AND writer != ?",
                    (self.token, number, self.token),
                )
            return run

    def detach(self, number: int) -> None:
        with self._file.writing() as database:
            values = (number, self.token)
            database.execute("DELETE FROM watchers WHERE run = ? AND process = ?", values)

    def attached_elsewhere(self, numbers: Collection[int]) -> set[int]:
        with self._file.reading() as database:
            return {number for number in numbers if self.is_attached_elsewhere(database, number)}

    def is_attached_elsewhere(self, database: sqlite3.Connection, number: int) -> bool:
        """Whether living processes other than this one have viewers of a run. In a transaction."""
        found = database.execute(
            "SELECT 1 FROM watchers JOIN processes ON process = token"
            " WHERE run = ? AND token != ? AND beat >= ? LIMIT 1",
            (number, self.token, self._clock() - DEAD_SECONDS),
        )
        return found.fetchone() is not None

    def others_are_attached(self) -> bool:
        with self._file.using() as database:
            asked = "SELECT 1 FROM watchers WHERE process != ? LIMIT 1"
            return database.execute(asked, (self.token,)).fetchone() is not None
