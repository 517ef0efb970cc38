"""The mark of a file that is being moved to: no service uses it, whatever version it is of."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from sseflask.store.sqlite.file import FileFormat, SqliteFile


def mark(database: sqlite3.Connection, format: FileFormat) -> None:
    """Mark a file. In a write transaction."""
    database.execute(f"PRAGMA application_id = {format.unfinished}")


def unmark(database: sqlite3.Connection, format: FileFormat) -> None:
    """Undo `mark`; harmless if there is no mark. In a write transaction."""
    database.execute(f"PRAGMA application_id = {format.application}")


def is_marked(database: sqlite3.Connection, format: FileFormat) -> bool:
    found: int
    (found,) = database.execute("PRAGMA application_id").fetchone()
    return found == format.unfinished


def empty(database: sqlite3.Connection, tables: Sequence[str]) -> None:
    """Delete all rows of some tables. In a write transaction."""
    for table in tables:
        database.execute(f"DELETE FROM {table}")


def checkpoint(file: SqliteFile) -> None:
    """Have all that was written on the disk, in the file itself."""
    with file.using("written") as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
