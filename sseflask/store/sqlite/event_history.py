"""Reads the events of some channels: a page costs what it returns, however many channels there are.

First the next events of all channels are looked at, so a client that is a few events behind costs a
few events. If few of them are wanted, the events of each wanted channel are merged.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from sseflask.store.api import Entry, History, HistoryQuery
from sseflask.store.pattern_index import PatternSet
from sseflask.store.sqlite.event_gaps import missing
from sseflask.store.sqlite.event_tables import IN_JSON, names_of
from sseflask.store.sqlite.file import SqliteFile
from sseflask.store.sqlite.pattern_channels import MANY, PatternChannels, Steps

#: Bytes after which a page ends.
PAGE_BYTES = 256 * 1024

#: Events of all channels that one step looks at, which takes about a millisecond; and steps after
#: which a page ends though it is empty.
_SCAN, _SCANS = 500, 20

_Place = tuple[int, int]
"""An event's number and its channel's id."""


def history(
    file: SqliteFile, channels: PatternChannels, epoch: str, query: HistoryQuery
) -> Steps[History]:
    patterns, after, limit = query.patterns, query.after, query.limit
    wanted = PatternSet(patterns)
    entries, last, newest, complete = _first(file, wanted, after, limit)
    if not complete:
        yield
        entries, last, newest = yield from _far(file, channels, wanted, after, limit)
    if query.missing == "none":
        return History(epoch, entries, last, [], newest)
    yield
    # After the entries: so what was trimmed before they were read is in it.
    found = yield from missing(file, channels, patterns, -1 if query.missing == "all" else after)
    return History(epoch, entries, last, found, newest)


def _first(
    file: SqliteFile, wanted: PatternSet, after: int, limit: int
) -> tuple[list[Entry], int, int, bool]:
    """A page from the next events of all channels, and whether it will do.

    That is: the entries, the number up to which they are complete, the newest number.
    """
    with file.reading() as database:
        newest = _newest(database)
        found, last = _scan(database, wanted, after, limit, limit)
        if len(found) < limit and last < newest:
            return [], after, newest, False
        return *_entries(database, found, last), newest, True


def _far(
    file: SqliteFile, channels: PatternChannels, wanted: PatternSet, after: int, limit: int
) -> Steps[tuple[list[Entry], int, int]]:
    """A page of events that are far apart; returns as `_first` does, but for the last."""
    ids, upto = yield from _ids(file, channels, wanted)
    if ids is not None:
        with file.reading() as database:
            found, last = _merge(database, ids, after, upto, limit)
            return *_entries(database, found, last), _newest(database)
    for _ in range(_SCANS):
        with file.reading() as database:
            newest = _newest(database)
            found, last = _scan(database, wanted, after, limit, _SCAN)
            entries, after = _entries(database, found, last)
        if entries or after >= newest:
            break
        yield
    return entries, after, newest


def _newest(database: sqlite3.Connection) -> int:
    newest: int = database.execute("SELECT newest FROM log").fetchone()[0]
    return newest


def _ids(
    file: SqliteFile, channels: PatternChannels, wanted: PatternSet
) -> Steps[tuple[list[int] | None, int]]:
    """The ids of all wanted channels, ``None`` if they are many; see `PatternChannels.ids`."""
    with file.reading() as database:
        upto = _newest(database)
        rows = database.execute(
            f"SELECT id FROM channels WHERE name {IN_JSON}", (json.dumps([*wanted.names]),)
        )
        ids = {id for (id,) in rows}
    for pattern in wanted.wild:
        found, newest = yield from channels.ids(pattern)
        if found is None:
            return None, 0
        ids.update(found)
        upto = min(upto, newest)
        if len(ids) > MANY:
            return None, 0
    return sorted(ids), upto


def _scan(
    database: sqlite3.Connection, wanted: PatternSet, after: int, limit: int, most: int
) -> tuple[list[_Place], int]:
    """The first wanted events among the next ones of all channels; and how far it has looked."""
    rows = database.execute(
        "SELECT number, channel FROM events WHERE number > ? ORDER BY number LIMIT ?",
        (after, most),
    ).fetchall()
    names = names_of(database, {channel for _, channel in rows})
    ids = {id for id, name in names.items() if name in wanted}
    found = [row for row in rows if row[1] in ids][:limit]
    if len(found) == limit:
        return found, found[-1][0]
    return found, rows[-1][0] if len(rows) == most else max(after, _newest(database))


def _merge(
    database: sqlite3.Connection, ids: Sequence[int], after: int, upto: int, limit: int
) -> tuple[list[_Place], int]:
    """The first events of some channels; and up to which number they are complete."""
    each = limit if len(ids) == 1 else 2 + 2 * limit // max(1, len(ids))
    found, last = list[_Place](), max(after, upto)
    for id in ids:
        numbers = database.execute(
            "SELECT number FROM events WHERE channel = ? AND number > ? AND number <= ?"
            " ORDER BY number LIMIT ?",
            (id, after, upto, each),
        ).fetchall()
        found += ((number, id) for (number,) in numbers)
        if len(numbers) == each:  # there may be more of it
            last = min(last, numbers[-1][0])
    found = sorted(place for place in found if place[0] <= last)[:limit]
    return found, found[-1][0] if len(found) == limit else last


def _entries(
    database: sqlite3.Connection, found: Sequence[_Place], last: int
) -> tuple[list[Entry], int]:
    """The events at some places, as many as a page may hold; and up to which number."""
    names = names_of(database, {channel for _, channel in found})
    rows = database.execute(
        f"SELECT number, channel, frame FROM events WHERE number {IN_JSON} ORDER BY number",
        (json.dumps([number for number, _ in found]),),
    )
    entries, size = list[Entry](), 0
    for number, channel, frame in rows:
        entries.append(Entry(number, names[channel], frame))
        size += len(frame)
        if size >= PAGE_BYTES and len(entries) < len(found):
            return entries, number
    return entries, last
