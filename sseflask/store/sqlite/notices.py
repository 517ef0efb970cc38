"""What the processes that share a log tell one another in it, beside its events.

Notices have numbers of their own, so that they are no events that a client could miss, and few are
kept, so that they take no room of the events'. All in the caller's transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from sseflask.store.tail import Notice, NoticeKind

__all__ = ["answer", "answers", "forget_answers", "notices", "notify", "prepare_notices"]

#: Notices that are kept beside the newest ones. A process that has missed more knows that it has.
_KEPT = 500

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS notices (number INTEGER PRIMARY KEY, after INTEGER NOT NULL,"
    " kind TEXT NOT NULL, body TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS answers (notice INTEGER NOT NULL, process TEXT NOT NULL,"
    " answer INTEGER NOT NULL, PRIMARY KEY (notice, process)) WITHOUT ROWID",
)


def prepare_notices(database: sqlite3.Connection) -> None:
    """Make the tables where they are not there: the first files of this version have none."""
    for statement in _SCHEMA:
        database.execute(statement)
    columns = [name for _, name, *_ in database.execute("PRAGMA table_info(log)")]
    if "notices" not in columns:
        database.execute("ALTER TABLE log ADD COLUMN notices INTEGER NOT NULL DEFAULT 0")


def notify(database: sqlite3.Connection, kind: NoticeKind, bodies: Sequence[str]) -> int:
    """See `sseflask.store.api.Log`. Writes."""
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


def notices(database: sqlite3.Connection, after: int) -> list[Notice]:
    """See `sseflask.store.api.Log`."""
    rows = database.execute(
        "SELECT number, after, kind, body FROM notices WHERE number > ? ORDER BY number", (after,)
    )
    return [Notice(*row) for row in rows]


def answer(database: sqlite3.Connection, notice: int, process: str, number: int) -> None:
    """See `sseflask.store.api.Log`. Writes."""
    database.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", (notice, process, number))


def answers(database: sqlite3.Connection, notice: int) -> dict[str, int]:
    """See `sseflask.store.api.Log`."""
    rows = database.execute("SELECT process, answer FROM answers WHERE notice = ?", (notice,))
    return dict(rows.fetchall())


def forget_answers(database: sqlite3.Connection, notice: int) -> None:
    """See `sseflask.store.api.Log`. Writes."""
    database.execute("DELETE FROM answers WHERE notice = ?", (notice,))
