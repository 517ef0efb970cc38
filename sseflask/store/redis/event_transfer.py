"""Moves the events of a Redis server, see `sseflask.store.transfer` and ``lua/events.lua``."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator

from sseflask.store.api import EventLimits, StoreError
from sseflask.store.redis.event_scripts import LONGEST
from sseflask.store.redis.pipeline import Command, Pipeline
from sseflask.store.transfer import (
    PART_BYTES,
    PART_ITEMS,
    ChannelPart,
    Counts,
    EventHead,
    KeyPart,
    MovedEvent,
)

#: Seconds for which a key is known.
KEY_SECONDS = 86_400

#: Seconds for which a process that has said nothing may still be there.
HERE_SECONDS = 5.0

#: Times are noted about so many times in the time that has passed since; for events of the last
#: seconds once a second.
_MARKS = 500

#: Larger numbers are not exact in Lua.
_LARGEST = 2**52


class MovedEvents:
    """The events on a server, for the process that moves them."""

    def __init__(self, pipeline: Pipeline, limits: EventLimits) -> None:
        self._pipeline = pipeline
        self._seconds = min(limits.seconds, LONGEST)
        self._meta = pipeline.key("e", "meta")

    def _key(self, *names: str) -> bytes:
        return self._pipeline.key("e", self._generation, *names)

    # -- from it -----------------------------------------------------------------------------------

    def head(self) -> EventHead | None:
        """See `Transfer.head`; before what follows."""
        epoch, generation, newest, jump, floor, count, noted, holes = self._pipeline.command(
            "HMGET", self._meta, "e", "g", "n", "j", "f", "c", "t", "h"
        )
        if not epoch or not generation:
            return None
        self._generation = generation.decode()
        self._last = self._key("last")
        known = self._pipeline.command("ZCARD", self._last)
        # If Redis has thrown the index away, all may have been trimmed.
        self._floor = int(floor) if known == int(count) else int(newest)
        self._noted = float(noted)
        last = max(int(newest), int(jump or 0))
        return EventHead(epoch.decode(), last, (holes or b"").decode(), self._floor)

    def users(self) -> int:
        """How many processes use them."""
        generation = self._pipeline.command("HGET", self._meta, "g")
        if not generation:
            return 0
        since = self._pipeline.time() - HERE_SECONDS
        key = self._pipeline.key("e", generation.decode(), "here")
        count: int = self._pipeline.command("ZCOUNT", key, repr(since), "+inf")
        return count

    def count(self, counts: Counts) -> None:
        if self.head() is None:
            return
        for names in self._names():
            streams = [self._key("channel:" + name) for name, _ in names]
            lengths = self._pipeline.commands([("XLEN", stream) for stream in streams])
            sizes = self._pipeline.commands([("MEMORY", "USAGE", stream) for stream in streams])
            counts.channels += len(names)
            counts.events += sum(lengths)
            counts.bytes += sum(size or 0 for size in sizes)
        for keys in self._pipeline.keys("e", self._generation, "key:"):
            counts.keys += len(keys)

    def _names(self) -> Iterator[list[tuple[str, int]]]:
        """The channels, and the numbers of their last events, also of those that are trimmed."""
        place = 0
        while True:
            rows = self._pipeline.command(
                "ZRANGE", self._last, place, place + PART_ITEMS - 1, "WITHSCORES"
            )
            if not rows:
                return
            place += PART_ITEMS
            yield [
                (name.decode(), int(score))
                for name, score in zip(rows[::2], rows[1::2], strict=True)
            ]

    def parts(self) -> Iterator[ChannelPart | KeyPart]:
        if self.head() is None:
            return
        pipeline = self._pipeline
        now = pipeline.time()
        marks = pipeline.command("ZRANGE", self._key("times"), 0, -1, "WITHSCORES")
        self._numbers = [int(number) for number in marks[::2]]
        # What has no mark yet was stored within a second after the last one.
        self._times = [*map(float, marks[1::2]), min(now, self._noted + 1)]
        for names in self._names():
            for name, last in names:
                yield from self._channel(name, last, now)
        for keys in pipeline.keys("e", self._generation, "key:"):
            values = pipeline.commands([("GET", key) for key in keys])
            left = pipeline.commands([("PTTL", key) for key in keys])
            for key, value, milliseconds in zip(keys, values, left, strict=True):
                if value is not None and milliseconds > 0:
                    first, last_number, digest = value.split(b" ", 2)
                    name = key[len(self._key("key:")) :].decode()
                    age = max(0.0, KEY_SECONDS - milliseconds / 1000)
                    yield KeyPart(name, digest, int(first), int(last_number), age)

    def _channel(self, name: str, last: int, now: float) -> Iterator[ChannelPart]:
        stream, begin, before, begins = self._key("channel:" + name), "-", last, True
        amount = 16
        while True:
            rows = self._pipeline.command("XRANGE", stream, begin, "+", "COUNT", amount)
            if rows and begins:
                before = int(rows[0][1][1])
            if rows or (begins and last > self._floor):
                events = [
                    MovedEvent(number, self._age(number, now), row[1][3])
                    for row in rows
                    for number in (_number(row),)
                ]
                yield ChannelPart(name, begins, before, events)
            if len(rows) < amount:
                return
            begins, before = False, _number(rows[-1])
            begin = f"{before + 1}"
            size = sum(len(row[1][3]) for row in rows) / len(rows)
            amount = max(1, min(PART_ITEMS, int(PART_BYTES / (size + 1))))

    def _age(self, number: int, now: float) -> float:
        return max(0.0, now - self._times[bisect_left(self._numbers, number)])

    # -- into it -----------------------------------------------------------------------------------

    @property
    def is_empty(self) -> bool:
        newest = self._pipeline.command("HGET", self._meta, "n")
        return newest is None or int(newest) == 0

    def begin(self, generation: str) -> None:
        self._generation = generation
        self._now = self._pipeline.time()
        self._channels = 0
        self._largest = 0
        self._marks: dict[int, tuple[int, float]] = {}

    def commands(self, part: ChannelPart | KeyPart) -> list[Command]:
        """What stores a part."""
        if isinstance(part, KeyPart):
            value = b"%d %d %s" % (part.first, part.last, part.digest)
            left = max(1, math.ceil((KEY_SECONDS - part.age) * 1000))
            return [("SET", self._key("key:" + part.key), value, "PX", left)]
        stream, before, commands = (
            self._key("channel:" + part.channel),
            part.before,
            list[Command](),
        )
        for number, age, frame in part.events:
            commands.append(("XADD", stream, f"{number}-0", "p", before, "f", frame))
            before = number
            self._largest = max(self._largest, len(frame))
            self._note(number, age)
        if part.events:
            left = max(1, math.ceil((self._seconds - part.events[-1].age) * 1000))
            commands.append(("PEXPIRE", stream, left))
        commands.append(("ZADD", self._key("last"), before, part.channel))
        if part.begins:
            self._channels += 1
            if part.events:
                commands.append(("ZADD", self._key("first"), part.events[0].number, part.channel))
        return commands

    def _note(self, number: int, age: float) -> None:
        """Note when the newest of the events of about the same age was stored."""
        place = int(age) if age < _MARKS else int(_MARKS * (1 + math.log(age / _MARKS)))
        known = self._marks.get(place)
        if known is None or known[0] < number:
            self._marks[place] = number, age

    def last_commands(self, head: EventHead, identity: str) -> list[Command]:
        """What makes all of it the events of this server."""
        if head.newest >= _LARGEST:
            raise StoreError("the numbers of the events are too large for Redis")
        times = self._key("times")
        commands: list[Command] = [
            ("ZADD", times, repr(self._now - age), number) for number, age in self._marks.values()
        ]
        for name in ("times", "last", "first"):
            commands.append(("EXPIRE", self._key(name), math.ceil(2 * self._seconds) + 86_400))
        known = ("e", head.epoch, "g", self._generation, "n", head.newest, "f", head.floor)
        more = ("c", self._channels, "i", identity, "t", repr(self._now))
        fresh = ("m", 0, "s", 0, "h", head.holes, "a", 0, "j", 0, "l", self._largest)
        commands.append(("HSET", self._meta, *known, *more, *fresh))
        return commands


def _number(row: list[bytes]) -> int:
    return int(row[0].partition(b"-")[0])
