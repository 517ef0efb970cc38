"""The processes that use a file of runs: which are alive, which have viewers, what dead ones left.

A process gets a token when it enters, its lease, which decides what it may write. A process that
has not said for some seconds that it is alive is deleted by another one, which ends its runs, or
inherits them.
"""

from __future__ import annotations

import json
import logging
import math
import secrets
import sqlite3
from collections.abc import Callable, Collection
from typing import NamedTuple

from sseflask.store.api import StoreError
from sseflask.store.run_api import Ending, Run
from sseflask.store.sqlite.file import SqliteFile
from sseflask.store.sqlite.run_tables import (
    COLUMNS,
    LEFT,
    end_run,
    last_frame,
    run_by_number,
)

log = logging.getLogger("sseflask")

#: Seconds without a sign of life after which a process is taken for dead. A process that itself
#: stood still for most of that time ends none: perhaps all processes did.
DEAD_SECONDS, _AWAY_SECONDS = 5.0, 3.0

#: Seconds for which a run may wait for a process to go on with it, however short runs are kept.
WAIT_SECONDS = 60.0

#: Number of runs that one transaction ends at most: others wait for the file meanwhile.
_END_RUNS = 50

_UNWRITTEN = "ended IS NULL AND writer NOT IN (SELECT token FROM processes)"
_ORPHANED = f"{_UNWRITTEN} AND (successor = x'' OR deaths AND writer != '')"
_INHERITABLE = f"{_UNWRITTEN} AND successor != x'' AND (writer = '' OR NOT deaths)"


class Estate(NamedTuple):
    """Runs that a process has taken over, with how to go on; and those that had waited too long."""

    inherited: list[tuple[Run, bytes]]
    ended: list[Run]


class Leases:
    """This process among those that share a file of runs.

    Args:
        wait_seconds: for which a run that nobody writes waits for a process to go on with it.
    """

    def __init__(
        self,
        file: SqliteFile,
        interrupted: Ending,
        wait_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self._file = file
        self._interrupted = interrupted
        self._wait_seconds = wait_seconds
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
            # Others have ended what it wrote, and it may begin anew. What one could inherit, and
            # none has, is still its own.
            before, self.token = self.token, secrets.token_hex(8)
            database.execute("INSERT INTO processes VALUES (?, ?)", (self.token, now))
            if before:
                database.execute(
                    "UPDATE runs SET writer = ?, waits_since = NULL"
                    " WHERE ended IS NULL AND writer = ? AND successor != x''",
                    (self.token, before),
                )

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
                "SELECT token, beat FROM processes WHERE beat < ?", (self._clock() - DEAD_SECONDS,)
            ).fetchall()
            for token, beat in dead:
                database.execute("DELETE FROM watchers WHERE process = ?", (token,))
                database.execute("DELETE FROM processes WHERE token = ?", (token,))
                database.execute(
                    "UPDATE runs SET waits_since = ?"
                    " WHERE ended IS NULL AND writer = ? AND successor != x''",
                    (beat, token),
                )
        ended = self._interrupt(_ORPHANED)
        if ended:
            log.warning("another worker is gone or stands still; its runs are ended")
        return ended

    def pass_on(self) -> list[int]:
        """Leave to others what they can go on with of what this process writes. Returns it."""
        with self._file.writing() as database:
            mine = "ended IS NULL AND writer = ? AND successor != x''"
            runs = database.execute(f"SELECT number FROM runs WHERE {mine}", (self.token,))
            passed_on = [number for (number,) in runs]
            database.execute(
                f"UPDATE runs SET writer = '', waits_since = ? WHERE {mine}",
                (self._clock(), self.token),
            )
            return passed_on

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

    # -- which others go on with -------------------------------------------------------------------

    def others_have_left(self) -> bool:
        """Whether there are runs whose writer has left, for others to go on with."""
        with self._file.using() as database:
            found = database.execute(f"SELECT 1 FROM runs WHERE {LEFT} LIMIT 1").fetchone()
            return found is not None

    def inherit(self, known: Collection[int]) -> Estate:
        """Take over some runs that nobody writes any more; end those that waited too long.

        ``known``: runs that this process believes to write, so that it is not to inherit them yet.
        """
        estate = Estate([], [])
        with self._file.using() as database:
            asked = f"SELECT 1 FROM runs WHERE {_INHERITABLE} LIMIT 1"
            if database.execute(asked).fetchone() is None:
                return estate
        with self._file.writing() as database:
            self.enter(database)
            now = self._clock()
            rows = database.execute(
                f"SELECT {COLUMNS}, successor, waits_since FROM runs WHERE {_INHERITABLE}"
                f" AND number NOT IN (SELECT value FROM json_each(?)) LIMIT {_END_RUNS}",
                (json.dumps(list(known)),),
            ).fetchall()
            for *columns, successor, since in rows:
                run = Run(*columns)
                if since is not None and now > since + self._wait_seconds:
                    estate.ended.append(end_run(database, run, self._interrupted, now))
                else:
                    estate.inherited.append((self._take_over(database, run), successor))
        return estate

    def _take_over(self, database: sqlite3.Connection, run: Run) -> Run:
        database.execute(
            "UPDATE runs SET deaths = deaths + (writer != ''), writer = ?, waits_since = NULL"
            " WHERE number = ?",
            (self.token, run.key),
        )
        values = (run.key, self.token)
        database.execute("DELETE FROM watchers WHERE run = ? AND process = ?", values)
        size, notes = last_frame(database, run)
        return run._replace(size=size, notes=notes)

    def taken_by_others(self, numbers: Collection[int]) -> list[int]:
        """Those of some runs that go on, but that this process does not write any more."""
        with self._file.using() as database:
            taken = database.execute(
                "SELECT number FROM runs WHERE number IN (SELECT value FROM json_each(?))"
                " AND ended IS NULL AND writer != ?",
                (json.dumps(list(numbers)), self.token),
            )
            return [number for (number,) in taken]

    def is_passed_on(self, database: sqlite3.Connection, number: int) -> bool:
        """Whether a run that goes on is another process's, or waits for one. In a transaction."""
        found = database.execute(
            "SELECT 1 FROM runs WHERE number = ? AND writer != ? AND successor != x''",
            (number, self.token),
        )
        return found.fetchone() is not None

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
