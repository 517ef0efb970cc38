"""The tables of a log on SQLite, and how they are looked up. All in the caller's transaction."""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Iterable

from sseflask.store.api import Append, Appended, KeyReused
from sseflask.store.sqlite.file import FileFormat, boot_id, is_new
from sseflask.store.sqlite.notices import prepare_notices

__all__ = [
    "FORMAT",
    "IN_JSON",
    "channel_row",
    "forgettable",
    "known_append",
    "names_of",
    "prepare",
    "renew",
]

#: A condition for a list of numbers of any length, given as JSON.
IN_JSON = "IN (SELECT value FROM json_each(?))"

#: Empty channels whose trimmed events are remembered one by one.
_EMPTY_CHANNELS = 10_000

#: Characters of an epoch; no two that look alike.
_EPOCH_LENGTH, _EPOCH_ALPHABET = 8, "abcdefghjkmnpqrstuvwxyz23456789"

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


def prepare(database: sqlite3.Connection, path: str, now: float) -> str:
    """Make the tables where there are none, and give the log's epoch. In a write transaction.

    Raises:
        StoreError: the database is not a log, or not one of this version.
    """
    boot = boot_id()
    if is_new(database, path, FORMAT):
        for statement in _SCHEMA:
            database.execute(statement)
        row = (_new_epoch(), boot, 0, 0, 0.0, now, 0)
        database.execute("INSERT INTO log VALUES (?, ?, ?, ?, ?, ?, ?)", row)
    # Numbers that a crash of the machine took back are given out again: not as the same ids.
    elif database.execute("SELECT boot FROM log").fetchone() != (boot,):
        database.execute("UPDATE log SET epoch = ?, boot = ?", (_new_epoch(), boot))
    # Not in the first files of this version.
    database.execute("CREATE INDEX IF NOT EXISTS channels_by_trimmed ON channels (trimmed)")
    prepare_notices(database)
    epoch: str = database.execute("SELECT epoch FROM log").fetchone()[0]
    return epoch


def renew(database: sqlite3.Connection) -> str:
    """Give the log another epoch. In a write transaction."""
    epoch = _new_epoch()
    database.execute("UPDATE log SET epoch = ?", (epoch,))
    return epoch


def _new_epoch() -> str:
    return "".join(secrets.choice(_EPOCH_ALPHABET) for _ in range(_EPOCH_LENGTH))


def known_append(
    database: sqlite3.Connection, append: Append, epoch: str
) -> Appended | KeyReused | None:
    """What became of an append with the same key, ``None`` where there was none."""
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
    """A channel's id and how many events it holds; makes it where it is not there.

    Args:
        database: in a write transaction.
        name: the channel's.
        floor: the highest number of an event of a channel that is no longer remembered.
        first: the number of the event for which it is asked. A new channel has it for its id, so
            that ids grow and none is given out again.
    """
    row = database.execute("SELECT id, kept FROM channels WHERE name = ?", (name,)).fetchone()
    if row is None:
        # It may have been there before, and forgotten with all that is below the floor.
        values = (first, name, 0, floor)
        database.execute("INSERT INTO channels VALUES (?, ?, ?, ?)", values)
        row = (first, 0)
    return list(row)


def names_of(database: sqlite3.Connection, channels: Iterable[int]) -> dict[int, str]:
    """The names of some channels by their ids."""
    rows = database.execute(
        f"SELECT id, name FROM channels WHERE id {IN_JSON}", (json.dumps([*channels]),)
    )
    return dict(rows.fetchall())


def forgettable(database: sqlite3.Connection) -> tuple[int] | None:
    """The highest number trimmed from an empty channel that is not to be remembered any more."""
    row: tuple[int] | None = database.execute(
        "SELECT trimmed FROM channels WHERE kept = 0 ORDER BY trimmed DESC LIMIT 1 OFFSET ?",
        (_EMPTY_CHANNELS,),
    ).fetchone()
    return row
