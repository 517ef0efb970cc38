"""A log in an SQLite file, for all processes of one machine."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
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
)
from sseflask.store.sqlite import notices as sqlite_notices
from sseflask.store.sqlite.event_history import PAGE_BYTES, history
from sseflask.store.sqlite.event_retention import (
    EVENT_BYTES,
    Room,
    forget_aged,
    forget_channels,
    forget_keys,
    shorten,
    used_bytes,
)
from sseflask.store.sqlite.event_tables import (
    channel_row,
    forgettable,
    known_append,
    prepare,
    renew,
)
from sseflask.store.sqlite.file import SqliteFile
from sseflask.store.sqlite.pattern_channels import MeantChannels, Steps
from sseflask.store.tail import Notice, NoticeKind, Page

__all__ = ["EventDatabase"]

#: Seconds for which a repeated append is known at least.
_KEY_SECONDS = 86_400.0

#: The largest number that SQLite has; clients may name a larger one.
_LARGEST = 2**63 - 1


class EventDatabase:
    """Keeps `sseflask.store.api.Log`'s promises in one file.

    What was appended outlives every process. When the machine itself goes down the last moments
    may be lost, as nothing waits for the disk; so after its next start the log has a new epoch,
    and every client that comes back is told.

    Age is counted by a clock of the log's own, which goes on with the one on the wall but stands
    still while that is put back: it never runs backwards, so the oldest events are the first ones.

    Args:
        path: the file, made where it is not there; ``":memory:"`` for a log of this process alone.
        limits: how much is kept.
        clock: gives the time on the wall, in seconds.
    """

    def __init__(
        self,
        path: str,
        limits: EventLimits,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._file = SqliteFile(path, "channel log")
        self._meant = MeantChannels(self._file)
        self._limits = limits
        self._clock = clock
        self._room = Room(limits.bytes)
        self._epoch = ""
        self._version = -1
        self._last_notice = 0

    @property
    def last_notice(self) -> int:
        """See `Log`."""
        return self._last_notice

    @property
    def epoch(self) -> str:
        """The epoch of the file that is open, or was last."""
        return self._epoch

    def open(self) -> None:
        """Open the file; see `Log`. Harmless when it is open."""
        self._version = -1
        self._meant.clear()
        self._file.open(self._prepare)

    def close(self) -> None:
        """Close the file; see `Log`. Never an error."""
        self._file.close()

    def _prepare(self, database: sqlite3.Connection) -> None:
        self._epoch = prepare(database, self._file.path, self._clock())

    def append(self, appends: Sequence[Append]) -> list[Appended | KeyReused]:
        """Store all in one transaction; see `Log`."""
        size = sum(len(frame) + EVENT_BYTES for append in appends for frame in append.frames)
        with self._file.writing() as database:
            self._room.make(database, size)
            newest, floor, age, wall, self._last_notice = database.execute(
                "SELECT newest, floor, age, wall, notices FROM log"
            ).fetchone()
            before, now = newest, self._clock()
            age += max(0.0, now - wall)
            results: list[Appended | KeyReused] = []
            rows: list[tuple[int, int, float, bytes]] = []
            touched: dict[str, list[int]] = {}
            for append in appends:
                known = known_append(database, append, self._epoch)
                if known is None:
                    channel = touched.get(append.channel)
                    if channel is None:
                        channel = [*channel_row(database, append.channel, floor, newest + 1), 0]
                        touched[append.channel] = channel
                    known = Appended(newest + 1, newest + len(append.frames), epoch=self._epoch)
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
                for name, (number, kept, added) in touched.items():
                    keep = self._limits.events_of.get(name, self._limits.events)
                    self._count(database, number, kept, added, age, keep)
                database.execute("UPDATE log SET newest = ?, age = ?, wall = ?", (newest, age, now))
        return results

    def _count(
        self,
        database: sqlite3.Connection,
        channel: int,
        kept: int,
        added: int,
        age: float,
        keep: int,
    ) -> None:
        """Note how many events a channel holds; first shorten it where that is too many."""
        # Not one by one: a tenth at once is cheaper for each; and where most of them are young,
        # not at every append.
        tenth = max(1, keep // 10)
        if kept > keep + keep // 10 and kept // tenth > (kept - added) // tenth:
            kept -= shorten(database, channel, kept - keep, age - self._limits.young_seconds)
        database.execute("UPDATE channels SET kept = ? WHERE id = ?", (kept, channel))

    def newest(self) -> int:
        """See `Log`."""
        with self._file.using() as database:
            self._note_version(database)
            newest: int
            newest, self._last_notice = database.execute(
                "SELECT newest, notices FROM log"
            ).fetchone()
            return newest

    def renew(self) -> None:
        """See `Log`."""
        with self._file.writing() as database:
            self._epoch = renew(database)

    def since(self, number: int, limit: int) -> Page:
        """See `Log`."""
        with self._file.using() as database:
            # A cross join, so that SQLite keeps to this order of the tables.
            rows = database.execute(
                "SELECT number, name, frame FROM events CROSS JOIN channels ON channel = id"
                " WHERE number > ? ORDER BY number LIMIT ?",
                (min(number, _LARGEST), limit),
            )
            return _page(rows, limit)

    def _note_version(self, database: sqlite3.Connection) -> None:
        """Before a reading: what is written meanwhile is then a change again."""
        (self._version,) = database.execute("PRAGMA data_version").fetchone()

    def history(self, query: HistoryQuery) -> Steps[History]:
        """See `Log`."""
        if query.after > _LARGEST:
            query = replace(query, after=_LARGEST)
        return history(self._file, self._meant, self._epoch, query)

    def notify(self, kind: NoticeKind, bodies: Sequence[str]) -> int:
        """See `Log`."""
        with self._file.writing() as database:
            return sqlite_notices.notify(database, kind, bodies)

    def notices(self, after: int) -> list[Notice]:
        """See `Log`."""
        with self._file.using() as database:
            return sqlite_notices.notices(database, after)

    def answer(self, notice: int, process: str, number: int) -> None:
        """See `Log`."""
        with self._file.writing() as database:
            sqlite_notices.answer(database, notice, process, number)

    def answers(self, notice: int) -> dict[str, int]:
        """See `Log`."""
        with self._file.using() as database:
            return sqlite_notices.answers(database, notice)

    def forget_answers(self, notice: int) -> None:
        """See `Log`."""
        with self._file.writing() as database:
            sqlite_notices.forget_answers(database, notice)

    def trim(self) -> int:
        """Forget events and keys by age, and the oldest where they take too much; see `Log`."""
        with self._file.reading() as database:
            if not self._due(database):
                return 0
        with self._file.writing() as database:
            age, wall = database.execute("SELECT age, wall FROM log").fetchone()
            now = self._clock()
            age += max(0.0, now - wall)
            database.execute("UPDATE log SET age = ?, wall = ?", (age, now))
            events = forget_aged(database, age - self._limits.seconds)
            keys = forget_keys(database, age - _KEY_SECONDS)
            more = self._room.forget(database)
            forget_channels(database)
        self._file.shorten()
        return events + keys + more

    def _due(self, database: sqlite3.Connection) -> bool:
        """Whether there is anything for `trim` to write."""
        age, wall = database.execute("SELECT age, wall FROM log").fetchone()
        now = self._clock()
        age += max(0.0, now - wall)
        event = database.execute("SELECT at FROM events ORDER BY number LIMIT 1").fetchone()
        key = database.execute("SELECT at FROM publishes ORDER BY at LIMIT 1").fetchone()
        return (
            now < wall  # put back: the time from here on counts
            or (event is not None and event[0] < age - self._limits.seconds)
            or (key is not None and key[0] < age - _KEY_SECONDS)
            or forgettable(database) is not None
            or self._room.lacks(database)
        )

    def changed(self) -> bool:
        """See `Log`; asks SQLite's data_version, which other connections' commits change."""
        with self._file.using() as database:
            return bool(database.execute("PRAGMA data_version").fetchone()[0] != self._version)

    def replaced(self) -> bool:
        """See `Log`; whether there is another file, or none, at the path."""
        return self._file.replaced()

    def extent(self) -> Extent:
        """See `Log`."""
        with self._file.reading() as database:
            age, wall = database.execute("SELECT age, wall FROM log").fetchone()
            event = database.execute("SELECT at FROM events ORDER BY number LIMIT 1").fetchone()
            used = used_bytes(database)
        age += max(0.0, self._clock() - wall)
        return Extent(used, age - event[0] if event else 0.0)


def _page(rows: Iterable[tuple[int, str, bytes]], limit: int) -> Page:
    """The first rows, as many as a page may hold."""
    entries, size = list[Entry](), 0
    for row in rows:
        entries.append(Entry(*row))
        size += len(row[2])
        if size >= PAGE_BYTES:
            return Page(entries, complete=False)
    return Page(entries, complete=len(entries) < limit)
