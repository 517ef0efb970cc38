"""How large a file of runs may be: what is forgotten for its age, and what to make room."""

from __future__ import annotations

import math
from collections.abc import Callable

from sseflask.store.api import Extent
from sseflask.store.run_api import Run, RunLimits
from sseflask.store.sqlite.file import SqliteFile
from sseflask.store.sqlite.run_retention import forget_runs, is_forgettable, used_bytes
from sseflask.store.sqlite.run_rows import size_of_run
from sseflask.store.sqlite.run_tables import COLUMNS

__all__ = ["Space"]

#: Of the file's bytes: when the oldest runs begin to be forgotten.
_NEARLY_FULL = 7 / 8

#: Seconds for which a run is kept after its end, unless the file is overfull: somebody reads it.
_READ_SECONDS = 10.0

#: Bytes that a process stores between two looks at what is used, at most; of the file, the part.
_STEP_BYTES, _STEPS = 1 << 20, 64


class Space:
    """Bounds a file of runs. What it uses is asked of SQLite, for all processes alike.

    As with `RunDatabase`, all calls come from one thread, may block, and raise `StoreError`.

    Args:
        file: the runs'.
        limits: how much is kept.
        clock: gives the monotonic time in seconds.

    Attributes:
        stored: the bytes that this process has stored so far, about.
        full: nothing was left to be forgotten, and it was nearly full nevertheless: nothing more is
            to be begun.
        overfull: it was full even: the largest run has to end.
    """

    def __init__(self, file: SqliteFile, limits: RunLimits, clock: Callable[[], float]) -> None:
        self._file = file
        self._limits = limits
        self._clock = clock
        self._step = min(_STEP_BYTES, limits.max_bytes / _STEPS)
        self._looked_at = 0
        self.stored = 0
        self.full = self.overfull = False

    def trim(self) -> int:
        """Forget some of the runs that ended long ago, with their keys; give how many."""
        return self._forget(self._clock() - self._limits.seconds)

    @property
    def is_due(self) -> bool:
        """Whether this process has stored so much since it last looked that room is to be made."""
        return self.stored - self._looked_at >= self._step

    def make(self) -> bool:
        """Forget some of the runs that ended first if the file is nearly full.

        Those that have just ended only if it is overfull. Sees also to `full`, to `overfull`, and
        to SQLite's write-ahead log.

        Returns:
            whether there may be more to forget.
        """
        self._looked_at = self.stored
        if self._limits.max_bytes == math.inf:
            return False
        used = self._used()
        # As much as may come before the next look has to fit as well.
        over, nearly = (
            used - self._limits.max_bytes + self._step,
            used - self._limits.max_bytes * _NEARLY_FULL,
        )
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
            sizes = [(size_of_run(database, Run(*row)), row[0]) for row in running]
        return max(sizes)[1] if sizes else None

    def extent(self) -> Extent:
        """Give how much the file holds, and how long ago the run ended that ended first."""
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
