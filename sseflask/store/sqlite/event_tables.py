"""The tables of a database of events, and how they are read. In the caller's transaction."""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Iterable

from sseflask.store.api import Append, Appended, KeyReused
from sseflask.store.sqlite.file import FileFormat, boot_id, is_new
from sseflask.store.sqlite.notices import prepare_notices

#: A condition for a list of numbers of any length, given as JSON.
IN_JSON = "IN (SELECT value FROM json_each(?))"

#: Channels without events that keep their row, which has the highest number trimmed from them.
_EMPTY_CHANNELS = 10_000

#: An epoch's length and characters; no two look alike.
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
    """Make the tables if there are none; return the epoch. In a write transaction.

    Raises `StoreError` if it is another program's database, or another version's.
    """
    boot = boot_id()
    if is_new(database, path, FORMAT):
        for statement in _SCHEMA:
            database.execute(statement)
        row = (_new_epoch(), boot, 0, 0, 0.0, now, 0)
        database.execute("INSERT INTO log VALUES (?, ?, ?, ?, ?, ?, ?)", row)
    # A crash of the machine may have lost the last events, whose numbers are given out again.
    elif database.execute("SELECT boot FROM log").fetchone() != (boot,):
        database.execute("UPDATE log SET epoch = ?, boot = ?", (_new_epoch(), boot))
    # Not in the first files of this version.
    database.execute("CREATE INDEX IF NOT EXISTS channels_by_trimmed ON channels (trimmed)")
    prepare_notices(database)
    epoch: str = database.execute("SELECT epoch FROM log").fetchone()[0]
    return epoch


def renew(database: sqlite3.Connection) -> str:
    """Store another epoch, and return it. In a write transaction."""
    epoch = _new_epoch()
    database.execute("UPDATE log SET epoch = ?", (epoch,))
    return epoch


def _new_epoch() -> str:
    return "".join(secrets.choice(_EPOCH_ALPHABET) for _ in range(_EPOCH_LENGTH))


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

    Args:
        floor: the highest number trimmed from a channel whose row was deleted.
        first: the number of the event to be stored. It is the id of a new channel, so that ids
            grow and none is given out again.
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
