"""Deletes what a database is not to keep: by count, age and size. In the caller's transaction."""

from __future__ import annotations

import sqlite3

from sseflask.store.sqlite.event_tables import surplus_channels
from sseflask.store.sqlite.file import used_bytes

#: Events, and keys, that are deleted at once, so that other calls don't wait long.
EVENTS, KEYS = 1000, 10_000

#: Events of one channel that an append deletes at most.
_SHORTEN_EVENTS = 5000

#: Bytes after which the size of the database is looked at.
_LOOK_BYTES = 64 * 1024

#: Events, or keys, that are deleted at once if room is needed; and bytes, if no call waits for it.
_BATCH, _TRIM_BYTES = 500, 1 << 20

#: Bytes that an event takes beside its frame, about: in its row, in the index, for a key.
EVENT_BYTES = 100


def trim_channel(database: sqlite3.Connection, channel: int, excess: int, old: float) -> int:
    """Delete the first ``excess`` events of a channel that are ``old`` enough. Returns how many."""
    (first,) = database.execute(
        "SELECT at FROM events WHERE channel = ? ORDER BY number LIMIT 1", (channel,)
    ).fetchone()
    if first > old:
        return 0
    # Age never runs backwards, so the young events are the last ones.
    (last,) = database.execute(
        "SELECT max(number) FROM (SELECT number, at FROM events WHERE channel = ?"
        " ORDER BY number LIMIT ?) WHERE at <= ?",
        (channel, min(excess, _SHORTEN_EVENTS), old),
    ).fetchone()
    trimmed = database.execute(
        "DELETE FROM events WHERE channel = ? AND number <= ?", (channel, last)
    ).rowcount
    database.execute("UPDATE channels SET trimmed = ? WHERE id = ?", (last, channel))
    return trimmed


def trim_aged(database: sqlite3.Connection, before: float) -> int:
    """Delete the first events, as far as they are older than an age. Returns how many."""
    rows = database.execute(
        "SELECT number, at FROM events ORDER BY number LIMIT ?", (EVENTS,)
    ).fetchall()
    numbers = [number for number, at in rows if at < before]
    if numbers:
        _trim_upto(database, numbers[-1])
    return len(numbers)


def delete_old_keys(database: sqlite3.Connection, before: float, most: int = KEYS) -> int:
    """Delete the oldest keys, as far as they are older than an age. Returns how many."""
    return database.execute(
        "DELETE FROM publishes WHERE key IN"
        " (SELECT key FROM publishes WHERE at < ? ORDER BY at LIMIT ?)",
        (before, most),
    ).rowcount


def delete_empty_channels(database: sqlite3.Connection) -> None:
    last = surplus_channels(database)
    if last is not None:
        database.execute("DELETE FROM channels WHERE kept = 0 AND trimmed <= ?", last)
        database.execute("UPDATE log SET floor = max(floor, ?)", last)


def _trim_upto(database: sqlite3.Connection, last: int) -> None:
    parts = database.execute(
        "SELECT count(*), max(number), channel FROM events WHERE number <= ? GROUP BY channel",
        (last,),
    ).fetchall()
    database.executemany("UPDATE channels SET kept = kept - ?, trimmed = ? WHERE id = ?", parts)
    database.execute("DELETE FROM events WHERE number <= ?", (last,))


class SizeLimit:
    """Keeps a database within a number of bytes of its file, which all processes see alike.

    What is deleted leaves free pages, which are used before the file grows.
    """

    def __init__(self, most: float) -> None:
        self._most = most
        # Somewhat less, as other processes add something between two looks.
        self._enough = most - most / 16
        self._look = min(_LOOK_BYTES, most / 64)
        self._added = self._look

    def make_room(self, database: sqlite3.Connection, size: int) -> None:
        """Delete the oldest events and keys before ``size`` bytes are added."""
        self._added += size
        if self._added < self._look:
            return
        added, self._added = self._added, 0.0
        before = used = used_bytes(database)
        while used + size > self._enough and _trim_oldest(database, 2 * added):
            used = used_bytes(database)
            # If far too much is there, as after a change of the limit, publishers wait only for
            # the room that is needed now.
            if used + size <= self._most and before - used >= 2 * added:
                break
        if used < before:
            delete_empty_channels(database)

    def exceeded(self, database: sqlite3.Connection) -> bool:
        return used_bytes(database) > self._enough and oldest(database) != (None, None)

    def trim(self, database: sqlite3.Connection) -> int:
        return _trim_oldest(database, _TRIM_BYTES) if self.exceeded(database) else 0


def oldest(database: sqlite3.Connection) -> tuple[float | None, float | None]:
    """The ages of the database when the first event and the first key were stored."""
    first: tuple[float | None, float | None] = database.execute(
        "SELECT (SELECT at FROM events ORDER BY number LIMIT 1),"
        " (SELECT at FROM publishes ORDER BY at LIMIT 1)"
    ).fetchone()
    return first


def _trim_oldest(database: sqlite3.Connection, size: float) -> int:
    """Delete events of about ``size`` bytes, or first keys that are older. Returns how many."""
    event, key = oldest(database)
    if key is not None and (event is None or key < event):
        return delete_old_keys(database, float("inf") if event is None else event, _BATCH)
    count = last = 0
    for number, length in database.execute(
        "SELECT number, length(frame) FROM events ORDER BY number LIMIT ?", (_BATCH,)
    ):
        count, last = count + 1, number
        size -= length + EVENT_BYTES
        if size <= 0:
            break
    if count:
        _trim_upto(database, last)
    return count
