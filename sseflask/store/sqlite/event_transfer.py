"""Moves the events of an SQLite file, see `sseflask.store.transfer`."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from sseflask.store.sqlite.event_database import KEY_SECONDS, EventDatabase
from sseflask.store.sqlite.event_tables import FORMAT
from sseflask.store.sqlite.moved_file import MovedFile
from sseflask.store.transfer import (
    PART_BYTES,
    PART_ITEMS,
    ChannelPart,
    Counts,
    EventHead,
    KeyPart,
    MovedEvent,
)


class MovedEvents(MovedFile, EventDatabase):
    """A file of events, for the process that moves them."""

    format = FORMAT
    tables = ("channels", "events", "publishes", "notices", "answers")

    # -- from it -----------------------------------------------------------------------------------

    def head(self) -> EventHead:
        with self.using() as database:
            return EventHead(
                *database.execute("SELECT epoch, newest, holes, floor FROM log").fetchone()
            )

    def count(self, counts: Counts) -> None:
        with self.reading() as database:
            counts.events, size = database.execute(
                "SELECT count(*), total(length(frame)) FROM events"
            ).fetchone()
            counts.bytes += int(size)
            (counts.channels,) = database.execute("SELECT count(*) FROM channels").fetchone()
            (counts.keys,) = database.execute(
                "SELECT count(*) FROM publishes WHERE at >= ?", (self._oldest_key(database),)
            ).fetchone()

    def _oldest_key(self, database: sqlite3.Connection) -> float:
        return self._age(database)[0] - KEY_SECONDS

    def parts(self) -> Iterator[ChannelPart | KeyPart]:
        with self.reading() as database:
            (now, _), oldest_key = self._age(database), self._oldest_key(database)
        after: int | str = -1
        while True:
            with self.using() as database:
                channels = database.execute(
                    "SELECT id, name, trimmed FROM channels WHERE id > ? ORDER BY id LIMIT ?",
                    (after, PART_ITEMS),
                ).fetchall()
            for id, name, trimmed in channels:
                yield from self._channel(id, name, trimmed, now)
            if not channels:
                break
            after = channels[-1][0]
        after = ""
        while True:
            with self.using() as database:
                keys = database.execute(
                    "SELECT key, digest, first, last, ? - at FROM publishes"
                    " WHERE key > ? AND at >= ? ORDER BY key LIMIT ?",
                    (now, after, oldest_key, PART_ITEMS),
                ).fetchall()
            if not keys:
                break
            yield from (KeyPart(*row) for row in keys)
            after = keys[-1][0]

    def _channel(self, id: int, name: str, trimmed: int, now: float) -> Iterator[ChannelPart]:
        begins, before = True, trimmed
        while True:
            events, size = list[MovedEvent](), 0
            with self.using() as database:
                rows = database.execute(
                    "SELECT number, ? - at, frame FROM events WHERE channel = ? AND number > ?"
                    " ORDER BY number LIMIT ?",
                    (now, id, -1 if begins else before, PART_ITEMS),
                )
                for row in rows:
                    events.append(MovedEvent(*row))
                    size += len(row[2])
                    if size >= PART_BYTES:
                        break
                rows.close()
            if events or begins:
                yield ChannelPart(name, begins, before, events)
            if not events:
                return
            begins, before = False, events[-1].number

    # -- into it -----------------------------------------------------------------------------------

    @property
    def is_empty(self) -> bool:
        return self.unfinished or not self.head().newest

    def _clear(self, database: sqlite3.Connection) -> None:
        super()._clear(database)
        # Ages of events count back from the time on the wall.
        database.execute(
            "UPDATE log SET newest = 0, floor = 0, holes = '', age = ?, wall = ?",
            (self._now, self._now),
        )

    def take(self, part: ChannelPart | KeyPart) -> None:
        with self.writing() as database:
            if isinstance(part, KeyPart):
                database.execute(
                    "INSERT OR REPLACE INTO publishes VALUES (?, ?, ?, ?, ?)",
                    (part.key, part.digest, part.first, part.last, self._now - part.age),
                )
                return
            events = part.events
            if part.begins:
                # The number of one of its events, as no other channel has it.
                self._id = events[0].number if events else part.before
                database.execute(
                    "INSERT INTO channels VALUES (?, ?, 0, ?)",
                    (self._id, part.channel, part.before),
                )
            database.executemany(
                "INSERT INTO events VALUES (?, ?, ?, ?)",
                [(event.number, self._id, self._now - event.age, event.frame) for event in events],
            )
            database.execute(
                "UPDATE channels SET kept = kept + ? WHERE id = ?", (len(events), self._id)
            )

    def finish(self, head: EventHead | None) -> None:
        with self.writing() as database:
            if head is not None:
                database.execute("UPDATE log SET epoch = ?, newest = ?, holes = ?, floor = ?", head)
            self._unmark(database)
