"""What a process appends to the runs that it writes, in the transactions of `RunLog`."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import replace

from sseflask.completions.outcome import Outcome
from sseflask.completions.usage import Tally
from sseflask.store.run_api import Append, Run
from sseflask.store.sqlite.file import SqliteFile
from sseflask.store.sqlite.leases import Peers
from sseflask.store.sqlite.run_ends import Ending, end_run, tell_ends, with_usage
from sseflask.store.sqlite.run_frames import (
    MOST_FRAMES,
    Row,
    read_tally,
    store_frames,
)
from sseflask.store.sqlite.run_tables import COLUMNS, run_by_number

__all__ = ["Appends"]


class Appends:
    """Stores what comes of the runs of this process, and what there is of each by then.

    As with `RunLog`, all calls come from one thread, may block, and raise `StoreError`.

    Args:
        file: the log's.
        peers: this process's token.
        clock: gives the monotonic time in seconds.

    Attributes:
        stored: the bytes that this process has stored so far, about.
    """

    def __init__(self, file: SqliteFile, peers: Peers, clock: Callable[[], float]) -> None:
        self._file = file
        self._peers = peers
        self._clock = clock
        self._tallies: dict[int, Tally] = {}
        self.stored = 0

    def append(self, appends: Sequence[Append]) -> list[Run | None]:
        """See `RunLog.append`."""
        try:
            return self._append(appends)
        except BaseException:
            # They have counted what is not stored: they are read again.
            for append in appends:
                self._tallies.pop(append.run, None)
            raise

    def _append(self, appends: Sequence[Append]) -> list[Run | None]:
        rows: list[Row] = []
        endings: dict[int, Ending] = {}
        for append in appends:
            tally = self._tallies.get(append.run)
            if tally is None or tally.last != append.first - 1:
                tally = self._tallies[append.run] = self._read_tally(append)
            before = tally.size
            for frame in append.frames:
                tally.take(frame)
                rows.append((append.run, tally.last, tally.size, tally.said, tally.told, frame))
            self.stored += tally.size - before
            if append.outcome is not None:
                ending = self._ending(append, append.outcome, tally)
                if ending is not None:
                    endings[append.run] = ending
                    self.stored += len(ending.text)
        if len(rows) <= MOST_FRAMES and not endings:
            with self._file.using("written") as database:
                stored = store_frames(database, rows, self._peers.token)
            if stored:
                # Their names are not asked for: nearly all appends are one frame.
                return [Run(each.run, "", "", _last_of(each), None, None) for each in appends]
            with self._file.reading() as database:
                runs = [self._appended(database, each, None, []) for each in appends]
        else:
            # All or nothing: what fails is tried again as a whole.
            ended: list[Run] = []
            with self._file.writing() as database:
                for start in range(0, len(rows), MOST_FRAMES):
                    store_frames(database, rows[start : start + MOST_FRAMES], self._peers.token)
                runs = [
                    self._appended(database, append, endings.get(append.run), ended)
                    for append in appends
                ]
            tell_ends(ended)
        for append, run in zip(appends, runs, strict=True):
            if run is None or run.ended is not None:
                self._tallies.pop(append.run, None)
        return runs

    def _read_tally(self, append: Append) -> Tally:
        """What there is of a run before an append."""
        before = append.first - 1
        if not before:
            return Tally()
        with self._file.reading() as database:
            run = run_by_number(database, append.run)
            found = Tally() if run is None else read_tally(database, run)
        return replace(found, last=before)

    def _ending(self, append: Append, outcome: Outcome, tally: Tally) -> Ending | None:
        """How an append ends its run: worked out before the transaction, see `with_usage`."""
        with self._file.using() as database:
            row = database.execute(
                "SELECT dialect FROM runs WHERE number = ?", (append.run,)
            ).fetchone()
        return with_usage(outcome, tally, row[0]) if row else None

    def _appended(
        self, database: sqlite3.Connection, append: Append, ending: Ending | None, ended: list[Run]
    ) -> Run | None:
        """A run after an append; ends it where the append does, and notes that."""
        row = database.execute(
            f"SELECT writer, {COLUMNS} FROM runs WHERE number = ?", (append.run,)
        ).fetchone()
        if row is None:
            return None
        writer, run = row[0], Run(*row[1:])
        if ending is not None and run.ended is None and writer == self._peers.token:
            ended.append(end_run(database, run, ending, self._clock()))
            return ended[-1]
        # What was stored before somebody ended it is as good as everything else.
        return run if append.frames and run.last >= _last_of(append) else None

    def drop_ended(self) -> None:
        """Let go of runs that others have ended: perhaps nobody comes to append to them."""
        if not self._tallies:
            return
        with self._file.using() as database:
            running = database.execute(
                "SELECT number FROM runs WHERE ended IS NULL"
                " AND number IN (SELECT value FROM json_each(?))",
                (json.dumps(list(self._tallies)),),
            ).fetchall()
        self._tallies = {number: self._tallies[number] for (number,) in running}


def _last_of(append: Append) -> int:
    return append.first + len(append.frames) - 1
