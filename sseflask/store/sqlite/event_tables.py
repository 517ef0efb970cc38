"""The tables of a database of events, and how they are read. In the caller's transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence

from sseflask.store.api import Append, Appended, KeyReused
from sseflask.store.epoch import new_epoch
from sseflask.store.sqlite.file import FileFormat, SqliteFile, boot_id, is_new
from sseflask.store.tail import Notice, NoticeKind

#: A condition for a list of numbers of any length, given as JSON.
IN_JSON = "IN (SELECT value FROM json_each(?))"

#: Number of rows of empty channels that are kept; a row has the highest number trimmed from its
#: channel.
_EMPTY_CHANNELS = 10_000

#: Number of notices that are kept beside the newest ones. A process that misses more notices it.
_NOTICES = 500

#: What tells the file from other programs' databases ("sse\x01"), and from later versions of it.
FORMAT = FileFormat(0x73736501, 1)

# The index needs no number: within a channel SQLite keeps it in the order of the primary key.
_SCHEMA = (
    "CREATE TABLE log (epoch TEXT NOT NULL, boot TEXT NOT NULL, newest INTEGER NOT NULL,"
    " floor INTEGER NOT NULL, age REAL NOT NULL, wall REAL NOT NULL,"
    " notices INTEGER NOT NULL DEFAULT 0)",
    "CREATE TABLE channels (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,"
    " kept INTEGER NOT NULL, trimmed INTEGER NOT NULL)",
    "CREATE INDEX channels_empty ON channels (trimmed) WHERE kept = 0",
    "CREATE TABLE events (number INTEGER PRIMARY KEY, channel INTEGER NOT NULL,"
    " at REAL NOT NULL, frame BLOB NOT NULL)",
    "CREATE INDEX events_by_channel ON events (channel)",
    "CREATE TABLE publishes (key TEXT PRIMARY KEY, digest BLOB NOT NULL,"
    " first INTEGER NOT NULL, last INTEGER NOT NULL, at REAL NOT NULL) WITHOUT ROWID",
    "CREATE INDEX publishes_by_age ON publishes (at)",
)

# Not in the first files of this version.
_ADDED = (
    "CREATE INDEX IF NOT EXISTS channels_by_trimmed ON channels (trimmed)",
    "CREATE TABLE IF NOT EXISTS notices (number INTEGER PRIMARY KEY, after INTEGER NOT NULL,"
    " kind TEXT NOT NULL, body TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS answers (notice INTEGER NOT NULL, process TEXT NOT NULL,"
    " answer INTEGER NOT NULL, PRIMARY KEY (notice, process)) WITHOUT ROWID",
)

# Holes come from a store elsewhere, see `sseflask.store.holes`.
_ADDED_TO_LOG = {"notices": "INTEGER NOT NULL DEFAULT 0", "holes": "TEXT NOT NULL DEFAULT ''"}


def prepare(database: sqlite3.Connection, path: str, now: float) -> str:
    """Make the tables if there are none. Returns the epoch. In a write transaction."""
    boot = boot_id()
    if is_new(database, path, FORMAT):
        for statement in _SCHEMA:
            database.execute(statement)
        row = (new_epoch(), boot, 0, 0, 0.0, now, 0)
        database.execute("INSERT INTO log VALUES (?, ?, ?, ?, ?, ?, ?)", row)
    # A crash of the machine may have lost the last events, whose numbers are given out again.
    elif database.execute("SELECT boot FROM log").fetchone() != (boot,):
        database.execute("UPDATE log SET epoch = ?, boot = ?", (new_epoch(), boot))
    for statement in _ADDED:
        database.execute(statement)
    columns = [name for _, name, *_ in database.execute("PRAGMA table_info(log)")]
    for name, kind in _ADDED_TO_LOG.items():
        if name not in columns:
            database.execute(f"ALTER TABLE log ADD COLUMN {name} {kind}")
    epoch: str = database.execute("SELECT epoch FROM log").fetchone()[0]
    return epoch


def renew(database: sqlite3.Connection) -> str:
    """Store another epoch, and return it. In a write transaction."""
    epoch = new_epoch()
    database.execute("UPDATE log SET epoch = ?", (epoch,))
    return epoch


def known_append(
    database: sqlite3.Connection, append: Append, epoch: str
) -> Appended | KeyReused | None:
    """What became of an append with the same key; ``None`` if there was none."""
    if append.key is None:
        return None
    row = database.execute(
        "SELECT digest, first, last FROM publishes WHERE key = ?", (append.key,)
    ).fetchone()
    if row is None:
        return None
    digest, first, last = row
    if digest != append.digest:
        return KeyReused(append.key)
    return Appended(first, last, repeated=True, epoch=epoch)


def channel_row(database: sqlite3.Connection, name: str, floor: int, first: int) -> list[int]:
    """A channel's id and how many events it holds; makes its row if it is not there.

    ``floor`` is the highest number trimmed from channels whose row was deleted. A new channel's id
    is the number of its ``first`` event, so that ids grow and none is given out again.
    """
    row = database.execute("SELECT id, kept FROM channels WHERE name = ?", (name,)).fetchone()
    if row is None:
        # It may have been there before; its row was then deleted with all up to the floor.
        values = (first, name, 0, floor)
        database.execute("INSERT INTO channels VALUES (?, ?, ?, ?)", values)
        row = (first, 0)
    return list(row)


def names_of(database: sqlite3.Connection, channels: Iterable[int]) -> dict[int, str]:
    rows = database.execute(
        f"SELECT id, name FROM channels WHERE id {IN_JSON}", (json.dumps([*channels]),)
    )
    return dict(rows.fetchall())


def surplus_channels(database: sqlite3.Connection) -> tuple[int] | None:
    """The highest number trimmed from a channel whose row is to be deleted; ``None`` if none is."""
    row: tuple[int] | None = database.execute(
        "SELECT trimmed FROM channels WHERE kept = 0 ORDER BY trimmed DESC LIMIT 1 OFFSET ?",
        (_EMPTY_CHANNELS,),
    ).fetchone()
    return row


class Notices:
    """Messages of processes to all that share the database, and the answers to them.

    They are no events: they have numbers of their own, and few are kept.
    """

    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    def send(self, kind: NoticeKind, bodies: Sequence[str]) -> int:
        """Store some notices, at least one. Returns the number of the last."""
        with self._file.writing() as database:
            newest, number = database.execute("SELECT newest, notices FROM log").fetchone()
            last: int = number + len(bodies)
            database.executemany(
                "INSERT INTO notices VALUES (?, ?, ?, ?)",
                [(place, newest, kind, body) for place, body in enumerate(bodies, number + 1)],
            )
            database.execute("UPDATE log SET notices = ?", (last,))
            # Of those before: what comes together may be more than is kept.
            database.execute("DELETE FROM notices WHERE number <= ?", (number - _NOTICES,))
            database.execute("DELETE FROM answers WHERE notice <= ?", (number - _NOTICES,))
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
