"""Forgets what a log is not to keep: by count, by age, by size. In the caller's transaction."""

from __future__ import annotations

import sqlite3

from sseflask.store.sqlite.event_tables import forgettable

__all__ = [
    "EVENT_BYTES",
    "Room",
    "forget_aged",
    "forget_channels",
    "forget_keys",
    "oldest",
    "shorten",
    "used_bytes",
]

#: Events, and keys, that are forgotten in one go, so that nobody waits for it for long.
EVENTS, KEYS = 1000, 10_000

#: Events of one channel that an append forgets at most.
_SHORTEN_EVENTS = 5000

#: Bytes after which it is looked how large the log is.
_LOOK_BYTES = 64 * 1024

#: Events, or keys, that are forgotten in one go where room is needed; and bytes, where nobody
#: waits for it.
_BATCH, _FORGET_BYTES = 500, 1 << 20

#: Bytes that an event takes beside its frame, about: in its row, in the index, and for a key.
EVENT_BYTES = 100


def shorten(database: sqlite3.Connection, channel: int, excess: int, old: float) -> int:
    """Forget the first events of a channel, as far as they are not young; give how many.

    Args:
        database: in a write transaction.
        channel: its id; it has events.
        excess: how many are too many.
        old: the age of the log at which an event had to be there not to be young.
    """
    (first,) = database.execute(
        "SELECT at FROM events WHERE channel = ? ORDER BY number LIMIT 1", (channel,)
    ).fetchone()
    if first > old:
        return 0
    # Age never runs backwards, so the young ones are the last.
    (last,) = database.execute(
        "SELECT max(number) FROM (SELECT number, at FROM events WHERE channel = ?"
        " ORDER BY number LIMIT ?) WHERE at <= ?",
        (channel, min(excess, _SHORTEN_EVENTS), old),
    ).fetchone()
    forgotten = database.execute(
        "DELETE FROM events WHERE channel = ? AND number <= ?", (channel, last)
    ).rowcount
    database.execute("UPDATE channels SET trimmed = ? WHERE id = ?", (last, channel))
    return forgotten


def forget_aged(database: sqlite3.Connection, before: float) -> int:
    """Forget the first events, as far as they are older than an age; give how many."""
    rows = database.execute(
        "SELECT number, at FROM events ORDER BY number LIMIT ?", (EVENTS,)
    ).fetchall()
    numbers = [number for number, at in rows if at < before]
    if numbers:
        _forget_upto(database, numbers[-1])
    return len(numbers)


def forget_keys(database: sqlite3.Connection, before: float, most: int = KEYS) -> int:
    """Forget the oldest keys, as far as they are older than an age; give how many."""
    return database.execute(
        "DELETE FROM publishes WHERE key IN"
        " (SELECT key FROM publishes WHERE at < ? ORDER BY at LIMIT ?)",
        (before, most),
    ).rowcount


def forget_channels(database: sqlite3.Connection) -> None:
    """Forget the channels without events that are not to be remembered any more."""
    forgotten = forgettable(database)
    if forgotten is not None:
        database.execute("DELETE FROM channels WHERE kept = 0 AND trimmed <= ?", forgotten)
        database.execute("UPDATE log SET floor = max(floor, ?)", forgotten)


def _forget_upto(database: sqlite3.Connection, last: int) -> None:
    parts = database.execute(
        "SELECT count(*), max(number), channel FROM events WHERE number <= ? GROUP BY channel",
        (last,),
    ).fetchall()
    database.executemany("UPDATE channels SET kept = kept - ?, trimmed = ? WHERE id = ?", parts)
    database.execute("DELETE FROM events WHERE number <= ?", (last,))


class Room:
    """Sees to it that a log does not grow beyond a number of bytes. One thread.

    What counts is what SQLite uses of its file, which all processes see alike: events, channels,
    keys, indexes. What has been forgotten leaves free pages, which are used before the file grows.

    Args:
        most: the bytes.
    """

    def __init__(self, most: float) -> None:
        self._most = most
        # Somewhat less: other processes add up to so much between two looks.
        self._enough = most - most / 16
        self._look = min(_LOOK_BYTES, most / 64)
        self._added = self._look

    def make(self, database: sqlite3.Connection, size: int) -> None:
        """Forget the oldest events and keys before so many bytes are added. Writes."""
        self._added += size
        if self._added < self._look:
            return
        added, self._added = self._added, 0.0
        before = used = used_bytes(database)
        while used + size > self._enough and _forget_oldest(database, 2 * added):
            used = used_bytes(database)
            # Where far too much is there, as after a change of the bound, publishers wait only
            # for what is needed now.
            if used + size <= self._most and before - used >= 2 * added:
                break
        if used < before:
            forget_channels(database)

    def lacks(self, database: sqlite3.Connection) -> bool:
        """Whether something is to be forgotten, though nothing is added."""
        return used_bytes(database) > self._enough and oldest(database) != (None, None)

    def forget(self, database: sqlite3.Connection) -> int:
        """Forget a bounded number of the oldest events and keys if it `lacks` room. Writes."""
        return _forget_oldest(database, _FORGET_BYTES) if self.lacks(database) else 0


def used_bytes(database: sqlite3.Connection) -> int:
    """How much of its file a log uses."""
    pages, free, size = (
        database.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    used: int = (pages - free) * size
    return used


def oldest(database: sqlite3.Connection) -> tuple[float | None, float | None]:
    """The ages of the first event and of the first key."""
    first: tuple[float | None, float | None] = database.execute(
        "SELECT (SELECT at FROM events ORDER BY number LIMIT 1),"
        " (SELECT at FROM publishes ORDER BY at LIMIT 1)"
    ).fetchone()
    return first


def _forget_oldest(database: sqlite3.Connection, size: float) -> int:
    """Forget events of about so many bytes, or before them keys that are older; give how many."""
    event, key = oldest(database)
    if key is not None and (event is None or key < event):
        return forget_keys(database, float("inf") if event is None else event, _BATCH)
    count = last = 0
    for number, length in database.execute(
        "SELECT number, length(frame) FROM events ORDER BY number LIMIT ?", (_BATCH,)
    ):
        count, last = count + 1, number
        size -= length + EVENT_BYTES
        if size <= 0:
            break
    if count:
        _forget_upto(database, last)
    return count
