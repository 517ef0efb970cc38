"""The channels of patterns: looked up once, then kept up to date as channels come and go."""

from __future__ import annotations

import json
import sqlite3
import time
from array import array
from collections import OrderedDict
from collections.abc import Generator
from typing import TypeVar

from sseflask.store.names import Pattern
from sseflask.store.sqlite.event_tables import IN_JSON
from sseflask.store.sqlite.file import SqliteFile

Result = TypeVar("Result")

Steps = Generator[None, None, Result]
"""Work in short steps, between which other calls are served; its result comes at the end."""

#: Number of channels up to which a pattern's channels are listed.
MANY = 1000

#: Patterns that are known at a time: at most 8 MB of ids.
_PATTERNS = 1000

#: Names that one step goes through, which takes about a millisecond.
_NAMES = 10_000

#: Seconds for which a pattern is taken to have many channels, though some may be deleted.
_MANY_SECONDS = 60.0

#: Comes after every name.
_LAST = "\x7f"


class _Known:
    """What is known of one pattern.

    Every channel with an id up to ``seen`` has been looked at, except those with a name after
    ``rest``. Some of ``ids`` may have been deleted since. That does no harm, as no id is given out
    twice.
    """

    __slots__ = ("ids", "many_until", "rest", "seen")

    def __init__(self, pattern: Pattern, seen: int) -> None:
        self.ids = array("q")
        self.many_until = 0.0
        self.seen = seen
        self.rest: str | None = pattern.prefix[:-1]


class PatternChannels:
    """The channels of patterns with wildcards. Used by the store's thread alone.

    Channels that other processes make are found too. The id of a channel is the number of its
    first event, so a new channel has a higher id than all that have been looked at.
    """

    def __init__(self, file: SqliteFile) -> None:
        self.file = file
        self._known: OrderedDict[Pattern, _Known] = OrderedDict()

    def clear(self) -> None:
        """Forget everything: the file may be another one."""
        self._known.clear()

    def ids(self, pattern: Pattern) -> Steps[tuple[array[int] | None, int]]:
        """The ids of a pattern's channels, ``None`` if more than `MANY`; and the newest number.

        Channels made later have events after that number only.
        """
        known = self._known.get(pattern)
        if known is None or 0 < known.many_until < time.monotonic():
            with self.file.reading() as database:
                known = _Known(pattern, _highest(database))
            self._known[pattern] = known
        self._known.move_to_end(pattern)
        while len(self._known) > _PATTERNS:
            self._known.popitem(last=False)
        while True:
            with self.file.reading() as database:
                (newest,) = database.execute("SELECT newest FROM log").fetchone()
                if known.many_until:
                    return None, newest
                complete = _step(database, pattern, known)
                if len(known.ids) > MANY:
                    known.ids = _still_there(database, known.ids)
                if len(known.ids) > MANY:
                    known.ids = array("q")
                    known.many_until = time.monotonic() + _MANY_SECONDS
                elif complete:
                    return known.ids, newest
            yield


def _step(database: sqlite3.Connection, pattern: Pattern, known: _Known) -> bool:
    """Look at some more channels. Returns whether all have been looked at."""
    where, values = _like(pattern)
    if known.rest is not None:
        # By name: if the pattern begins with a name, its channels are beside one another.
        end = f"{pattern.prefix[:-1]}/" if pattern.prefix else _LAST  # the slash follows the dot
        row = database.execute(
            "SELECT name FROM channels WHERE name > ? AND name < ? ORDER BY name LIMIT 1 OFFSET ?",
            (known.rest, end, _NAMES - 1),
        ).fetchone()
        rows = database.execute(
            f"SELECT id, name FROM channels WHERE name > ? AND name <= ? AND id <= ? AND {where}",
            (known.rest, row[0] if row else end, known.seen, *values),
        )
        known.ids.extend(id for id, name in rows if pattern.matches(name))
        known.rest = row[0] if row else None
        if known.rest is not None:
            return False
    ids, behind = next_channels(database, pattern, known.seen, _NAMES)
    known.ids.extend(ids)
    known.seen = _highest(database) if behind is None else behind
    return behind is None


def next_channels(
    database: sqlite3.Connection,
    pattern: Pattern,
    after: int,
    amount: int,
    condition: str = "TRUE",
    *values: int,
) -> tuple[array[int], int | None]:
    """The channels of a pattern, and of a condition in SQL, among the next ones of all.

    So many are looked at, in the order of their ids. Gives the ids of those that fit, and the id
    after which to go on; ``None`` if these were the last.
    """
    row = database.execute(
        "SELECT id FROM channels WHERE id > ? ORDER BY id LIMIT 1 OFFSET ?", (after, amount - 1)
    ).fetchone()
    end: int | None = row[0] if row else None
    where, glob = _like(pattern)
    rows = database.execute(
        "SELECT id, name FROM channels WHERE id > ? AND id <= ifnull(?, 9223372036854775807)"
        f" AND {condition} AND {where}",
        (after, end, *values, *glob),
    )
    return array("q", (id for id, name in rows if pattern.matches(name))), end


def _highest(database: sqlite3.Connection) -> int:
    highest: int | None = database.execute("SELECT max(id) FROM channels").fetchone()[0]
    return highest or 0


def _still_there(database: sqlite3.Connection, ids: array[int]) -> array[int]:
    rows = database.execute(f"SELECT id FROM channels WHERE id {IN_JSON}", (json.dumps([*ids]),))
    return array("q", (id for (id,) in rows))


def _like(pattern: Pattern) -> tuple[str, tuple[str | int, ...]]:
    """A condition in SQL that all channels of a pattern meet, and few others."""
    # Names have none of the characters that GLOB gives a meaning to.
    glob = ".".join("*" if "*" in segment else segment for segment in pattern.segments)
    comparison = ">=" if pattern.segments[-1] == "**" else "="
    # The plus keeps SQLite from choosing an index by this condition.
    where = f"+name GLOB ? AND length(name) - length(replace(name, '.', '')) {comparison} ?"
    return where, (glob, len(pattern.segments) - 1)
