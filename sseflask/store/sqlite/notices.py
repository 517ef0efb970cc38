"""The notices of processes that share a database of events, and the answers to them.

They are no events: they have numbers of their own, and few are kept.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from sseflask.store.sqlite.file import SqliteFile
from sseflask.store.tail import Notice, NoticeKind

#: Notices that are kept beside the newest ones. A process that has missed more knows that it has.
_KEPT = 500

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS notices (number INTEGER PRIMARY KEY, after INTEGER NOT NULL,"
    " kind TEXT NOT NULL, body TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS answers (notice INTEGER NOT NULL, process TEXT NOT NULL,"
    " answer INTEGER NOT NULL, PRIMARY KEY (notice, process)) WITHOUT ROWID",
)


def prepare_notices(database: sqlite3.Connection) -> None:
    """Make the tables if they are not there: the first files of this version have none."""
    for statement in _SCHEMA:
        database.execute(statement)
    columns = [name for _, name, *_ in database.execute("PRAGMA table_info(log)")]
    if "notices" not in columns:
        database.execute("ALTER TABLE log ADD COLUMN notices INTEGER NOT NULL DEFAULT 0")


class Notices:
    """Reads and writes them. Used by the store's thread alone; raises `StoreError`."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    def send(self, kind: NoticeKind, bodies: Sequence[str]) -> int:
        """Store some notices, at least one; return the number of the last."""
        with self._file.writing() as database:
            newest, number = database.execute("SELECT newest, notices FROM log").fetchone()
            last: int = number + len(bodies)
            database.executemany(
                "INSERT INTO notices VALUES (?, ?, ?, ?)",
                [(place, newest, kind, body) for place, body in enumerate(bodies, number + 1)],
            )
            database.execute("UPDATE log SET notices = ?", (last,))
            # Of those before: what comes together may be more than is kept.
            database.execute("DELETE FROM notices WHERE number <= ?", (number - _KEPT,))
            database.execute("DELETE FROM answers WHERE notice <= ?", (number - _KEPT,))
            return last

    def after(self, number: int) -> list[Notice]:
        """Those with higher numbers, as far as they are kept."""
        with self._file.using() as database:
            rows = database.execute(
                "SELECT number, after, kind, body FROM notices WHERE number > ? ORDER BY number",
                (number,),
            )
            return [Notice(*row) for row in rows]

    def answer(self, notice: int, process: str, number: int) -> None:
        with self._file.writing() as database:
            database.execute(
                "INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", (notice, process, number)
            )

    def answers(self, notice: int) -> dict[str, int]:
        with self._file.using() as database:
            rows = database.execute(
                "SELECT process, answer FROM answers WHERE notice = ?", (notice,)
            )
            return dict(rows.fetchall())

    def forget_answers(self, notice: int) -> None:
        """Delete the answers that are not waited for any more."""
        with self._file.writing() as database:
            database.execute("DELETE FROM answers WHERE notice = ?", (notice,))
