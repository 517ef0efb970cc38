"""Finds the names and patterns of which events have been trimmed, and what is left of them.

Each channel's row has the highest number that was trimmed from it. Usually few channels have lost
an event after a given number, so these are looked at first.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence

from sseflask.store.api import Missing
from sseflask.store.names import Pattern
from sseflask.store.pattern_index import PatternSet
from sseflask.store.sqlite.event_tables import IN_JSON, names_of
from sseflask.store.sqlite.file import SqliteFile
from sseflask.store.sqlite.pattern_channels import PatternChannels, Steps, next_channels

#: Channels, or events, that are looked at for all patterns together.
_FEW = 500

#: Channels that one step goes through for one pattern, which takes some milliseconds at most; and
#: if it looks for the events of each.
_CHANNELS, _WITH_EVENTS = 10_000, 1000

_Ends = tuple[int | None, int | None]


def missing(
    file: SqliteFile, channels: PatternChannels, patterns: Sequence[Pattern], after: int
) -> Steps[list[Missing]]:
    """The patterns of which an event after a number has been trimmed; if it is below 0 all."""
    wanted = PatternSet(patterns)
    with file.reading() as database:
        floor, trimmed = _marks(database)
        if after >= max(floor, trimmed):
            return []
        lacking = _names(database, wanted, after, floor)
        lacking |= {pattern for pattern in wanted.wild if floor > after or pattern.is_everything}
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
                if (yield from _lacks(file, channels, pattern, after)):
                    lacking.add(pattern)
    found = [pattern for pattern in patterns if pattern in lacking]
    if not found:
        return []
    yield
    ends = yield from _ends(file, channels, found)
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


def _lacks(
    file: SqliteFile, channels: PatternChannels, pattern: Pattern, after: int
) -> Steps[bool]:
    """Whether an event of a pattern after a number has been trimmed."""
    ids, _ = yield from channels.ids(pattern)
    if ids is not None:
        with file.reading() as database:
            (trimmed,) = database.execute(
                f"SELECT max(trimmed) FROM channels WHERE id {IN_JSON}", (json.dumps([*ids]),)
            ).fetchone()
            return after < max(trimmed or 0, _marks(database)[0])
    place: int | None = 0
    while place is not None:
        with file.reading() as database:
            ids, place = next_channels(database, pattern, place, _CHANNELS, "trimmed > ?", after)
            # What was trimmed from channels without a row is not above the floor.
            if ids or after < _marks(database)[0]:
                return True
        yield
    return False


def _ends(
    file: SqliteFile, channels: PatternChannels, patterns: Sequence[Pattern]
) -> Steps[dict[Pattern, _Ends]]:
    """The first and the last number that is there of each pattern."""
    with file.reading() as database:
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
            with file.reading() as database:
                found[pattern] = _ends_of(database, ids)
        else:
            found[pattern] = yield from _ends_of_many(file, pattern)
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
    meaning = {channel: list(wanted.patterns(name)) for channel, name in names.items()}
    found: dict[Pattern, int] = {}
    for number, channel in rows:
        for pattern in meaning[channel]:
            found.setdefault(pattern, number)
    return found, len(rows) < _FEW


def _ends_of(database: sqlite3.Connection, ids: Iterable[int]) -> _Ends:
    first, last = database.execute(
        "SELECT min((SELECT min(number) FROM events WHERE channel = value)),"
        " max((SELECT max(number) FROM events WHERE channel = value)) FROM json_each(?)",
        (json.dumps([*ids]),),
    ).fetchone()
    return first, last


def _ends_of_many(file: SqliteFile, pattern: Pattern) -> Steps[_Ends]:
    numbers = list[int]()
    place: int | None = 0
    while place is not None:
        with file.reading() as database:
            ids, place = next_channels(database, pattern, place, _WITH_EVENTS, "kept > 0")
            numbers += (number for number in _ends_of(database, ids) if number is not None)
        yield
    return (min(numbers), max(numbers)) if numbers else (None, None)
