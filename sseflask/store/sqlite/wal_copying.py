"""When a store's thread copies the write-ahead log into its file: while nobody waits for it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from sseflask.store.sqlite.file import SqliteFile

#: Pages from which on the log is copied: some 4 MiB. It takes milliseconds, mostly of the disk.
_PAGES = 1000

#: Seconds without calls after which nobody is expected soon.
QUIET = 0.005

#: Seconds for which that is waited for at most, and between two attempts: what others read may hold
#: a copy up.
_LATEST, _AGAIN = 0.25, 0.25


class WalCopying:
    """Used by the store's thread alone.

    SQLite would leave it to the commit that makes the log so long, which then takes a hundred times
    as long as others. It still does where the log gets three times as long, as when this thread has
    no time, or its process stands still. Each process that has the file open counts the pages of
    all.

    Attributes:
        due: when to call `look`, at the latest; as a time of the clock.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.due = math.inf
        self._clock = clock
        self._earliest = 0.0
        self._latest = math.inf

    def look(self, database: SqliteFile, served: bool) -> None:
        """Copy, if there is enough to be copied and it is time.

        Args:
            served: whether the thread has had calls since this was called last.
        """
        if (database.pages_to_copy() or 0) < _PAGES:
            self.due = self._latest = math.inf
            return
        now = self._clock()
        if self._latest == math.inf:
            self._latest = now + _LATEST
        if served or self.due == math.inf:
            self.due = max(self._earliest, min(now + QUIET, self._latest))
        if now >= self.due:
            database.copy_wal()
            self.due = self._latest = math.inf
            self._earliest = self._clock() + _AGAIN
