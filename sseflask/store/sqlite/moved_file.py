"""A file that is being moved to: it is marked, so that no service uses it, whatever version."""

from __future__ import annotations

import sqlite3
from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar

from sseflask.store.sqlite.file import FileFormat, SqliteFile


class MovedFile(SqliteFile):
    """A file for the process that moves it. To be named before the kind of file among the bases.

    Attributes:
        is_target: it may be marked when it is opened.
        unfinished: it was.
    """

    format: ClassVar[FileFormat]
    tables: ClassVar[tuple[str, ...]]  # which are emptied
    _clock: Callable[[], float]

    is_target = False
    unfinished = False

    def _begin_use(self, database: sqlite3.Connection) -> None:
        (mark,) = database.execute("PRAGMA application_id").fetchone()
        self.unfinished = self.is_target and mark == self.format.unfinished
        if not self.unfinished:
            super()._begin_use(database)

    @property
    @abstractmethod
    def is_empty(self) -> bool:
        """Whether it has nothing, or what an unfinished move has left."""

    def begin(self) -> None:
        """Empty the file and mark it."""
        self._now = self._clock()
        with self.writing() as database:
            self._clear(database)
            database.execute(f"PRAGMA application_id = {self.format.unfinished}")

    def abandon(self) -> None:
        """Empty the file, and remove the mark."""
        with self.writing() as database:
            self._clear(database)

    def _clear(self, database: sqlite3.Connection) -> None:
        for table in self.tables:
            database.execute(f"DELETE FROM {table}")
        self._unmark(database)
        self._prepare(database)

    def _unmark(self, database: sqlite3.Connection) -> None:
        database.execute(f"PRAGMA application_id = {self.format.application}")

    def checkpoint(self) -> None:
        """Have all that was written on the disk, in the file itself."""
        with self.using("written") as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
