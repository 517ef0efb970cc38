"""Reads the events of some channels: a page, and what is missing.

An event's entry has the number of its channel's event before. So the first entry after a number
tells whether one has been trimmed, or thrown away by Redis, that came after that number.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sseflask.store.api import Entry, History, HistoryQuery, Missing
from sseflask.store.holes import in_hole
from sseflask.store.names import Pattern, PatternSet
from sseflask.store.redis.event_scripts import Unknown
from sseflask.store.redis.link import Argument, Link
from sseflask.store.redis.script import Script

#: Bytes after which a page ends.
PAGE_BYTES = 256 * 1024

#: Names and patterns whose ends one script looks for: each pattern is compared with many channels.
_ENDS_AT_ONCE = 5

#: Larger than every number; clients may name a larger one, but Lua's are exact up to here.
_LARGEST = 2**53 - 1

_READ = Script("events.lua", "read_events.lua")
_ENDS = Script("events.lua", "find_ends.lua")


@dataclass
class _Found:
    epoch: str
    newest: int
    last: int  # up to which number the entries are complete
    entries: list[Entry] = field(default_factory=list)
    lacking: set[str] = field(default_factory=set)  # channels that have lost an event
    forgotten: bool = False  # any channel may have
    wild_forgotten: bool = False  # any channel of a pattern with wildcards may have


#: What a reply says of a channel, added: these are all events; nothing is known of it.
_ALL, _UNKNOWN = 1, 2


class _Channel(NamedTuple):
    """What a channel has after a number."""

    name: str
    state: int
    rows: Sequence[Any]


def read(link: Link, meta: bytes, query: HistoryQuery) -> History:
    """Answer a query. Blocks; raises `Unknown`."""
    after, wanted = min(query.after, _LARGEST), PatternSet(query.patterns)
    found = _find(link, meta, wanted, after, query.limit)
    missing: list[Missing] = []
    if query.missing == "all":
        missing = _ends(link, meta, query.patterns)
    elif query.missing == "trimmed":
        lacking = {pattern for name in found.lacking for pattern in wanted.patterns(name)}
        patterns = [
            pattern
            for pattern in query.patterns
            if found.forgotten
            or (
                pattern.prefix in found.lacking
                if pattern.is_name
                else pattern in lacking or found.wild_forgotten
            )
        ]
        missing = _ends(link, meta, patterns)
    return History(found.epoch, found.entries, found.last, missing, found.newest)


def _find(link: Link, meta: bytes, wanted: PatternSet, after: int, limit: int) -> _Found:
    names = sorted(wanted.names)
    patterns = [_lua(pattern) for pattern in wanted.wild]
    found: _Found | None = None
    channels: dict[str, _Channel] = {}
    begin = b""
    while True:
        upto = _LARGEST if found is None else found.last
        arguments: list[Argument] = [after, limit, PAGE_BYTES, upto, len(names), *names]
        if patterns:
            arguments += [begin, *patterns]
        reply = link.run(_READ, [meta], arguments)
        if reply == [0]:
            raise Unknown
        epoch, newest, floor, holes, looked_at, begin = reply[:6]
        if found is None:
            found = _Found(epoch.decode(), newest, max(after, newest))
            found.forgotten = in_hole(after, holes.decode())
        elif epoch.decode() != found.epoch:
            raise Unknown  # replaced between two calls
        found.wild_forgotten |= floor > after
        for place in range(6, len(reply), 3):
            name = reply[place].decode()
            if name not in channels:
                channels[name] = channel = _Channel(name, reply[place + 1], reply[place + 2])
                _note(found, channel, after, floor)
        names = names[looked_at:]
        if not names and not begin:
            break
    _merge(found, channels, limit)
    return found


def _note(found: _Found, channel: _Channel, after: int, floor: int) -> None:
    """Note whether a channel has lost an event, and up to where its entries are complete."""
    if channel.state & _UNKNOWN:
        lacks = floor > after
    elif not channel.rows:
        lacks = True  # Redis has thrown its stream away, or deleted it since its events are too old
    else:
        lacks = int(channel.rows[0][1][1]) > after
    if lacks:
        found.lacking.add(channel.name)
    if not channel.state & _ALL:
        found.last = min(found.last, _number(channel.rows[-1][0]))


def _merge(found: _Found, channels: dict[str, _Channel], limit: int) -> None:
    entries = [
        Entry(number, channel.name, fields[3])
        for channel in channels.values()
        for id, fields in channel.rows
        if (number := _number(id)) <= found.last
    ]
    entries.sort(key=_by_number)
    if len(entries) > limit:
        del entries[limit:]
        found.last = entries[-1].number
    size = 0
    for place, entry in enumerate(entries, 1):
        size += len(entry.frame)
        if size >= PAGE_BYTES and place < len(entries):
            del entries[place:]
            found.last = entry.number
            break
    found.entries = entries


def _by_number(entry: Entry) -> int:
    return entry.number


def _number(id: bytes) -> int:
    return int(id.partition(b"-")[0])


def _ends(link: Link, meta: bytes, patterns: Sequence[Pattern]) -> list[Missing]:
    missing: list[Missing] = []
    for at in range(0, len(patterns), _ENDS_AT_ONCE):
        some = patterns[at : at + _ENDS_AT_ONCE]
        arguments: list[Argument] = []
        for pattern in some:
            arguments += ["n", pattern.prefix] if pattern.is_name else ["p", _lua(pattern)]
        reply = link.run(_ENDS, [meta], arguments)
        if not reply:
            raise Unknown
        missing += [
            Missing(pattern, reply[2 * place] or None, reply[2 * place + 1] or None)
            for place, pattern in enumerate(some)
        ]
    return missing


def _lua(pattern: Pattern) -> str:
    """The same as a pattern of Lua's ``string.find``."""
    *path, last = pattern.segments
    parts = ["[^.]*" if segment == "*" else _escaped(segment) for segment in path]
    parts.append({"*": "[^.]*", "**": ".*"}.get(last) or _escaped(last))
    return "^" + "%.".join(parts) + "$"


def _escaped(segment: str) -> str:
    return re.sub(r"([^A-Za-z0-9])", r"%\1", segment)
