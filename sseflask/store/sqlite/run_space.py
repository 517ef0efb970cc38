"""How much of the run log there may be: what is forgotten for its age, and what to make room."""

from __future__ import annotations

import math
from collections.abc import Callable

from sseflask.store.api import Extent
from sseflask.store.run_api import Run
from sseflask.store.sqlite.file import SqliteFile
from sseflask.store.sqlite.run_frames import read_tally
from sseflask.store.sqlite.run_retention import forget_runs, is_forgettable, used_bytes
from sseflask.store.sqlite.run_tables import COLUMNS

__all__ = ["Room"]

#: Of the log's bytes: when the oldest runs begin to be forgotten.
_NEARLY_FULL = 7 / 8

#: Seconds for which a run is kept after its end, unless the log is overfull: somebody reads it.
_READ_SECONDS = 10.0

#: Bytes that a process stores between two looks at what is used, at most; of the log, the part.
_STEP_BYTES, _STEPS = 1 << 20, 64


class Room:
    """Bounds a run log. What the file takes is asked of SQLite, for all processes alike.

    As with `RunLog`, all calls come from one thread, may block, and raise `StoreError`.

    Args:
        file: the log's.
        clock: gives the monotonic time in seconds.
        seconds: how long a run is kept after its end.
        most_bytes: how large the log may grow, infinite for any size.

    Attributes:
        full: nothing was left to be forgotten, and it was nearly full nevertheless: nothing more is
            to be begun.
        overfull: it was full even: the largest run has to end.
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
        self._step = min(_STEP_BYTES, most_bytes / _STEPS)
        self._looked_at = 0
        self.full = self.overfull = False

    def trim(self) -> int:
        """See `RunLog.trim`."""
        return self._forget(self._clock() - self._seconds)

    def is_due(self, stored: int) -> bool:
        """Whether this process has stored so much since it looked that it is time to `make` room.

        Args:
            stored: the bytes that it has stored so far.
        """
        return stored - self._looked_at >= self._step

    def make(self, stored: int) -> bool:
        """Forget some of the runs that ended first if the log is nearly full.

        Those that have just ended only if it is overfull. Sees also to `full`, to `overfull`, and
        to SQLite's write-ahead log.

        Returns:
            whether there may be more to forget.
        """
        self._looked_at = stored
        if self._most_bytes == math.inf:
            return False
        used = self._used()
        # As much as may come before the next look has to fit as well.
        over, nearly = used - self._most_bytes + self._step, used - self._most_bytes * _NEARLY_FULL
        nearly_full, overfull = nearly > 0, over > 0
        if overfull:
            forgotten = self._forget(math.inf, over + self._step) > 0
        else:
            young = self._clock() - _READ_SECONDS
            forgotten = nearly_full and self._forget(young, nearly) > 0
        self.full = nearly_full and not forgotten and not self._is_forgettable(math.inf)
        self.overfull = self.full and overfull
        self._file.shorten()
        return forgotten

    def largest(self) -> int | None:
        """Give the number of the run that goes on and has the most bytes, of any process."""
        with self._file.reading() as database:
            running = database.execute(f"SELECT {COLUMNS} FROM runs WHERE ended IS NULL").fetchall()
            sizes = [(read_tally(database, Run(*row)).size, row[0]) for row in running]
        return max(sizes)[1] if sizes else None

    def extent(self) -> Extent:
        """Give how much the log holds, and how long ago the run ended that ended first."""
        with self._file.reading() as database:
            used = used_bytes(database)
            (first,) = database.execute(
                "SELECT min(ended_at) FROM runs WHERE ended IS NOT NULL"
            ).fetchone()
        return Extent(used, 0.0 if first is None else max(0.0, self._clock() - first))

    def _used(self) -> int:
        with self._file.reading() as database:
            return used_bytes(database)

    def _is_forgettable(self, before: float) -> bool:
        with self._file.using() as database:
            return is_forgettable(database, before)

    def _forget(self, before: float, too_much: float = math.inf) -> int:
        if not self._is_forgettable(before):
            return 0
        with self._file.writing() as database:
            return forget_runs(database, before, too_much)
