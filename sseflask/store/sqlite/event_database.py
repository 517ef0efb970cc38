"""The events of channels in one SQLite file, as the store's thread uses it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from sseflask.store.api import (
    Append,
    Appended,
    Entry,
    EventLimits,
    Extent,
    History,
    HistoryQuery,
    KeyReused,
    Position,
)
from sseflask.store.sqlite import event_retention as retention
from sseflask.store.sqlite import event_tables as tables
from sseflask.store.sqlite.event_history import PAGE_BYTES, history
from sseflask.store.sqlite.file import SqliteFile, used_bytes
from sseflask.store.sqlite.pattern_channels import PatternChannels, Steps
from sseflask.store.tail import Page

#: Seconds for which a repeated append is known at least.
KEY_SECONDS = 86_400.0

#: The largest number that SQLite has; clients may name a larger one.
_LARGEST = 2**63 - 1


class EventDatabase(SqliteFile):
    """Numbers events, keeps some, gives them back. Each call is atomic, two are not.

    What was appended outlives every process. When the machine itself goes down the last moments
    may be lost, as nothing waits for the disk. So after its next start the database has a new
    epoch, and each client that returns is sent a gap.

    Age is counted by a clock of the database's own. It goes on with the clock on the wall but
    stands still while that is put back. So the oldest events are always the first ones.
    """

    def __init__(
        self, path: str, limits: EventLimits, clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__(path, "event store")
        self.epoch = ""  # of the file that is open, or was last
        self.last_notice = 0  # the newest one's number when `newest` or `append` was last called
        # What `newest` has found, and the mark before; the same once the listener was given it.
        self.found = self._known = (b"", Position("", 0))
        self.notices = tables.Notices(self)
        self._pattern_channels = PatternChannels(self)
        self._limits = limits
        self._clock = clock
        self._size = retention.SizeLimit(limits.bytes)

    def _prepare(self, database: sqlite3.Connection) -> None:
        self._pattern_channels.clear()
        self.epoch = tables.prepare(database, self.path, self._clock())

    def append(self, appends: Sequence[Append]) -> list[Appended | KeyReused]:
        """Store some appends in one transaction. If an error is raised none of them is stored."""
        frames = [frame for append in appends for frame in append.frames]
        size = sum(map(len, frames)) + len(frames) * retention.EVENT_BYTES
        with self.writing() as database:
            self._size.make_room(database, size)
            newest, floor, age, wall, self.last_notice = database.execute(
                "SELECT newest, floor, age, wall, notices FROM log"
            ).fetchone()
            before, now = newest, self._clock()
            age += max(0.0, now - wall)
            results: list[Appended | KeyReused] = []
            rows: list[tuple[int, int, float, bytes]] = []
            touched: dict[str, list[int]] = {}
            for append in appends:
                known = tables.known_append(database, append, self.epoch)
                if known is None:
                    channel = touched.get(append.channel)
                    if channel is None:
                        row = tables.channel_row(database, append.channel, floor, newest + 1)
                        channel = [*row, 0]
                        touched[append.channel] = channel
                    known = Appended(newest + 1, newest + len(append.frames), epoch=self.epoch)
                    for frame in append.frames:
                        newest += 1
                        rows.append((newest, channel[0], age, frame))
                    channel[1] += len(append.frames)
                    channel[2] += len(append.frames)
                    if append.key is not None:
                        database.execute(
                            "INSERT INTO publishes VALUES (?, ?, ?, ?, ?)",
                            (append.key, append.digest, known.first, known.last, age),
                        )
                results.append(known)
            if newest > before:
                database.executemany("INSERT INTO events VALUES (?, ?, ?, ?)", rows)
                for name, (id, kept, added) in touched.items():
                    self._count(database, name, id, kept, added, age)
                database.execute("UPDATE log SET newest = ?, age = ?, wall = ?", (newest, age, now))
        return results

    def _count(
        self, database: sqlite3.Connection, name: str, id: int, kept: int, added: int, age: float
    ) -> None:
        """Note how many events a channel holds; first trim it if that is too many."""
        keep = self._limits.events_of.get(name, self._limits.events)
        # Not one by one: a tenth at once is cheaper for each. And if most of them are young, not
        # at every append.
        tenth = max(1, keep // 10)
        beyond = kept - keep - keep // 10 - 1  # below 0 if it is not too many
        if beyond >= 0 and beyond // tenth > (beyond - added) // tenth:
            old = age - self._limits.young_seconds
            kept -= retention.trim_channel(database, id, kept - keep, old)
        database.execute("UPDATE channels SET kept = ? WHERE id = ?", (kept, id))

    def _age(self, database: sqlite3.Connection) -> tuple[float, float]:
        age, wall = database.execute("SELECT age, wall FROM log").fetchone()
        now = self._clock()
        return age + max(0.0, now - wall), now

    def newest(self) -> int:
        """The highest number ever given out, 0 if there is none."""
        mark = self.commit_mark()
        with self.using() as database:
            self._note_version(database)
            newest: int
            newest, self.last_notice = database.execute(
                "SELECT newest, notices FROM log"
            ).fetchone()
            self.found = (mark, Position(self.epoch, newest))
            return newest

    def note_given(self, found: tuple[bytes, Position]) -> None:
        """The listener has been given everything up to what `newest` had `found`; in its loop."""
        self._known = found

    def known_position(self) -> Position | None:
        """The place of `note_given`, if nothing was stored since, by any process; else ``None``.

        Any thread; never blocks.
        """
        mark, position = self._known
        return position if mark and mark == self.commit_mark() else None

    def renew(self) -> None:
        """Take another epoch, as numbers are given out again that clients have seen."""
        with self.writing() as database:
            self.epoch = tables.renew(database)

    def since(self, number: int, limit: int) -> Page:
        """The first events of all channels after a number; fewer if they are large."""
        entries, size = list[Entry](), 0
        with self.using() as database:
            # A cross join, so that SQLite keeps to this order of the tables.
            for row in database.execute(
                "SELECT number, name, frame FROM events CROSS JOIN channels ON channel = id"
                " WHERE number > ? ORDER BY number LIMIT ?",
                (min(number, _LARGEST), limit),
            ):
                entries.append(Entry(*row))
                size += len(row[2])
                if size >= PAGE_BYTES:
                    return Page(entries, complete=False)
        return Page(entries, complete=len(entries) < limit)

    def history(self, query: HistoryQuery) -> Steps[History]:
        """Answer a query in steps of about a millisecond, whatever is asked of however much."""
        query = replace(query, after=min(query.after, _LARGEST))
        return history(self._pattern_channels, self.epoch, query)

    def trim(self) -> int:
        with self.reading() as database:
            if not self._trim_due(database):
                return 0
        with self.writing() as database:
            age, now = self._age(database)
            database.execute("UPDATE log SET age = ?, wall = ?", (age, now))
            events = retention.trim_aged(database, age - self._limits.seconds)
            keys = retention.delete_old_keys(database, age - KEY_SECONDS)
            more = self._size.trim(database)
            retention.delete_empty_channels(database)
        self.truncate_wal()
        return events + keys + more

    def _trim_due(self, database: sqlite3.Connection) -> bool:
        age, now = self._age(database)
        (wall,) = database.execute("SELECT wall FROM log").fetchone()
        event, key = retention.oldest(database)
        return (
            now < wall  # put back: the time from here on counts
            or (event is not None and event < age - self._limits.seconds)
            or (key is not None and key < age - KEY_SECONDS)
            or tables.surplus_channels(database) is not None
            or self._size.exceeded(database)
        )

    def extent(self) -> Extent:
        with self.reading() as database:
            event, _ = retention.oldest(database)
            age, _ = self._age(database)
            return Extent(used_bytes(database), 0.0 if event is None else age - event)
