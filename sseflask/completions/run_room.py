"""How much of the run log there may be: what is forgotten for its age, and what to make room."""

from __future__ import annotations

import math
from collections.abc import Callable

from sseflask.channels.sqlite_file import SqliteFile
from sseflask.completions.run_entries import Run
from sseflask.completions.run_forgetting import forget_runs, is_forgettable, used_bytes
from sseflask.completions.run_frames import read_tally
from sseflask.completions.run_tables import COLUMNS

__all__ = ["Room"]

#: Of the log's bytes: when the oldest runs begin to be forgotten.
_NEARLY_FULL = 7 / 8


class Room:
    """Bounds a run log. What the file takes is asked of SQLite, for all processes alike.

    As with `RunLog`, all calls come from one thread, may block, and raise `LogError`.

    Args:
        file: the log's.
        clock: gives the monotonic time in seconds.
        seconds: how long a run is kept after its end.
        most_bytes: how large the log may grow, infinite for any size.
    """

    def __init__(
        self,
        file: SqliteFile,
        clock: Callable[[], float],
        *,
        seconds: float,
        most_bytes: float,
    ) -> None:
        self._file = file
        self._clock = clock
        self._seconds = seconds
        self._most_bytes = most_bytes
        self._full = False

    def trim(self) -> int:
        """See `RunLog.trim`."""
        return self._forget(self._clock() - self._seconds)

    def make(self) -> bool:
        """Forget some of the runs that ended first where the log is nearly full.

        Returns:
            whether there is nothing left to be forgotten, and it is full nevertheless: what is
            running has to end.
        """
        if self._most_bytes == math.inf:
            return False
        used = self._used()
        forgotten = used > self._most_bytes * _NEARLY_FULL and self._forget(math.inf)
        self._full = used > self._most_bytes and not forgotten
        return self._full

    def is_full(self) -> bool:
        """Whether it was full and still is. Costs nothing where it was not."""
        return self._full and self.make()

    def largest(self) -> int | None:
        """Give the number of the run that goes on and has the most bytes, of any process."""
        with self._file.reading() as database:
            running = database.execute(f"SELECT {COLUMNS} FROM runs WHERE ended IS NULL").fetchall()
            sizes = [(read_tally(database, Run(*row)).size, row[0]) for row in running]
        return max(sizes)[1] if sizes else None

    def _used(self) -> int:
        with self._file.reading() as database:
            return used_bytes(database)

    def _forget(self, before: float) -> int:
        with self._file.using() as database:
            due = is_forgettable(database, before)
        if not due:
            return 0
        with self._file.writing() as database:
            return forget_runs(database, before)
