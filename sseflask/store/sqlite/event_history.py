"""Reads the events of some channels: a page costs what it returns, however many channels there are.

First the next events of all channels are looked at, so a client that is a few events behind costs a
few events. If few of them are wanted, the events of each wanted channel are merged.

Then the names and patterns are found of which events have been trimmed. Each channel's row has the
highest number that was trimmed from it. Usually few channels have lost an event after a given
number, so these are looked at first.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence

from sseflask.store.api import Entry, History, HistoryQuery, Missing
from sseflask.store.holes import in_hole
from sseflask.store.names import Pattern, PatternSet
from sseflask.store.sqlite.event_tables import IN_JSON, names_of
from sseflask.store.sqlite.pattern_channels import MANY, PatternChannels, Steps, next_channels

#: Bytes after which a page ends.
PAGE_BYTES = 256 * 1024

#: Events of all channels that one step looks at, which takes about a millisecond; and steps after
#: which a page ends though it is empty.
_SCAN, _SCANS = 500, 20

#: Channels, or events, that are looked at for all patterns together.
_FEW = 500

#: Channels that one step goes through for one pattern, which takes some milliseconds at most; and
#: if it looks for the events of each.
_CHANNELS, _WITH_EVENTS = 10_000, 1000

_Place = tuple[int, int]
"""An event's number and its channel's id."""

_Ends = tuple[int | None, int | None]
"""The numbers of the first and the last event that are there."""


def history(channels: PatternChannels, epoch: str, query: HistoryQuery) -> Steps[History]:
    patterns, after, limit = query.patterns, query.after, query.limit
    wanted = PatternSet(patterns)
    entries, last, newest, complete = _first(channels, wanted, after, limit)
    if not complete:
        yield
        entries, last, newest = yield from _far(channels, wanted, after, limit)
    if query.missing == "none":
        return History(epoch, entries, last, [], newest)
    yield
    # After the entries: so what was trimmed before they were read is in it.
    found = yield from _missing(channels, patterns, -1 if query.missing == "all" else after)
    return History(epoch, entries, last, found, newest)


def _first(
    channels: PatternChannels, wanted: PatternSet, after: int, limit: int
) -> tuple[list[Entry], int, int, bool]:
    """A page as `_far` gives it, among the next events of all channels; and if it is complete."""
    with channels.file.reading() as database:
        newest = _newest(database)
        found, last = _scan(database, wanted, after, limit, limit)
        if len(found) < limit and last < newest:
            return [], after, newest, False
        return *_entries(database, found, last), newest, True


def _far(
    channels: PatternChannels, wanted: PatternSet, after: int, limit: int
) -> Steps[tuple[list[Entry], int, int]]:
    """A page of events that are far apart; up to which number it is complete; the newest number."""
    ids, upto = yield from _ids(channels, wanted)
    if ids is not None:
        with channels.file.reading() as database:
            found, last = _merge(database, ids, after, upto, limit)
            return *_entries(database, found, last), _newest(database)
    for _ in range(_SCANS):
        with channels.file.reading() as database:
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


def _ids(channels: PatternChannels, wanted: PatternSet) -> Steps[tuple[list[int] | None, int]]:
    """The ids of all wanted channels, ``None`` if they are many; see `PatternChannels.ids`."""
    with channels.file.reading() as database:
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
        "SELECT number, channel FROM events WHERE number > ? ORDER BY number LIMIT ?", (after, most)
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


# -- what is missing -------------------------------------------------------------------------------


def _missing(
    channels: PatternChannels, patterns: Sequence[Pattern], after: int
) -> Steps[list[Missing]]:
    """The patterns that lack a trimmed event after ``after``; all patterns if it is negative."""
    wanted = PatternSet(patterns)
    with channels.file.reading() as database:
        floor, trimmed = _marks(database)
        (holes,) = database.execute("SELECT holes FROM log").fetchone()
        is_lost = in_hole(after, holes)
        if after >= max(floor, trimmed) and not is_lost:
            return []
        lacking = _names(database, wanted, after, floor)
        lacking |= {pattern for pattern in wanted.wild if floor > after or pattern.is_everything}
        if is_lost:
            lacking.update(patterns)
        names = database.execute(
            "SELECT name FROM channels WHERE trimmed > ? ORDER BY trimmed DESC LIMIT ?",
            (after, _FEW),
        ).fetchall()
        for (name,) in names if len(lacking) < len(patterns) else ():
            lacking.update(wanted.patterns(name))
    if len(names) == _FEW:
        for pattern in wanted.wild:
            if pattern not in lacking:
                yield
                if (yield from _lacks(channels, pattern, after)):
                    lacking.add(pattern)
    found = [pattern for pattern in patterns if pattern in lacking]
    if not found:
        return []
    yield
    ends = yield from _ends(channels, found)
    return [Missing(pattern, *ends[pattern]) for pattern in found]


def _marks(database: sqlite3.Connection) -> tuple[int, int]:
    """The highest numbers trimmed: from channels without a row, and from all others."""
    floor, trimmed = database.execute(
        "SELECT floor, (SELECT max(trimmed) FROM channels) FROM log"
    ).fetchone()
    return floor, trimmed or 0


def _names(
    database: sqlite3.Connection, wanted: PatternSet, after: int, floor: int
) -> set[Pattern]:
    rows = database.execute(
        f"SELECT name, trimmed FROM channels WHERE name {IN_JSON}", (json.dumps([*wanted.names]),)
    )
    # A channel without a row may have had one, which was deleted with its last events.
    marks = dict.fromkeys(wanted.names, floor) | dict(rows.fetchall())
    return {Pattern.parse(name) for name, trimmed in marks.items() if trimmed > after}


def _lacks(channels: PatternChannels, pattern: Pattern, after: int) -> Steps[bool]:
    ids, _ = yield from channels.ids(pattern)
    if ids is not None:
        with channels.file.reading() as database:
            (trimmed,) = database.execute(
                f"SELECT max(trimmed) FROM channels WHERE id {IN_JSON}", (json.dumps([*ids]),)
            ).fetchone()
            return after < max(trimmed or 0, _marks(database)[0])
    place: int | None = 0
    while place is not None:
        with channels.file.reading() as database:
            ids, place = next_channels(database, pattern, place, _CHANNELS, "trimmed > ?", after)
            # What was trimmed from channels without a row is not above the floor.
            if ids or after < _marks(database)[0]:
                return True
        yield
    return False


def _ends(channels: PatternChannels, patterns: Sequence[Pattern]) -> Steps[dict[Pattern, _Ends]]:
    with channels.file.reading() as database:
        rows = database.execute(
            f"SELECT id, name FROM channels WHERE name {IN_JSON}",
            (json.dumps([pattern.prefix for pattern in patterns if pattern.is_name]),),
        )
        ids_of = {name: [id] for id, name in rows}
        found = {
            pattern: _ends_of(database, ids_of.get(pattern.prefix, ()))
            for pattern in patterns
            if pattern.is_name
        }
        wild = [pattern for pattern in patterns if not pattern.is_name]
        first, all_seen = _nearest(database, wild, "ASC")
        last, _ = _nearest(database, wild, "DESC")
    for pattern in wild:
        if all_seen or (pattern in first and pattern in last):
            found[pattern] = first.get(pattern), last.get(pattern)
            continue
        yield
        ids, _ = yield from channels.ids(pattern)
        if ids is not None:
            with channels.file.reading() as database:
                found[pattern] = _ends_of(database, ids)
        else:
            found[pattern] = yield from _ends_of_many(channels, pattern)
    return found


def _nearest(
    database: sqlite3.Connection, patterns: Sequence[Pattern], order: str
) -> tuple[dict[Pattern, int], bool]:
    """The first number of each pattern among some events; and whether these are all events."""
    rows = database.execute(
        f"SELECT number, channel FROM events ORDER BY number {order} LIMIT ?",
        (_FEW if patterns else 0,),
    ).fetchall()
    names = names_of(database, {channel for _, channel in rows})
    wanted = PatternSet(patterns)
    patterns_of = {channel: list(wanted.patterns(name)) for channel, name in names.items()}
    found: dict[Pattern, int] = {}
    for number, channel in rows:
        for pattern in patterns_of[channel]:
            found.setdefault(pattern, number)
    return found, len(rows) < _FEW


def _ends_of(database: sqlite3.Connection, ids: Iterable[int]) -> _Ends:
    first, last = database.execute(
        "SELECT min((SELECT min(number) FROM events WHERE channel = value)),"
        " max((SELECT max(number) FROM events WHERE channel = value)) FROM json_each(?)",
        (json.dumps([*ids]),),
    ).fetchone()
    return first, last


def _ends_of_many(channels: PatternChannels, pattern: Pattern) -> Steps[_Ends]:
    numbers = list[int]()
    place: int | None = 0
    while place is not None:
        with channels.file.reading() as database:
            ids, place = next_channels(database, pattern, place, _WITH_EVENTS, "kept > 0")
            numbers += (number for number in _ends_of(database, ids) if number is not None)
        yield
    return (min(numbers), max(numbers)) if numbers else (None, None)
