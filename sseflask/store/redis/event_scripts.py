"""What a process asks of the server about events: one script for each question."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import NamedTuple

from sseflask.store.api import Append, Appended, EventLimits, KeyReused
from sseflask.store.epoch import new_epoch
from sseflask.store.redis.event_tail import EventTail, Place
from sseflask.store.redis.link import Argument, Link
from sseflask.store.redis.script import Script
from sseflask.store.redis.server import RedisServer

#: Seconds for which a process that has said nothing is taken to be there.
_HERE_SECONDS = 5

#: Seconds for which the answers to a count are kept.
_ANSWER_SECONDS = 30

#: Redis takes no larger number of seconds.
LONGEST = 1e9

#: Numbers that are left out if some may have been lost: this many, and up to as many again. Numbers
#: are exact up to 2**53: after 4.5 million restarts of the server.
_JUMP = 10**9

_OPEN = Script("events.lua", "open_events.lua")
_APPEND = Script("events.lua", "append_events.lua")
_LOOK = Script("events.lua", "look_at_events.lua")
_SEND = Script("events.lua", "send_notices.lua")


class Unknown(Exception):
    """The server has events of another generation, or none at all: `EventScripts.open` it."""


class TooEarly(Exception):
    """Other processes have to look at the server first: they may know what it lost."""


class Stored(NamedTuple):
    """What became of a group of appends."""

    before: Place
    results: list[Appended | KeyReused]
    last: int  # the highest number after them

    @property
    def behind(self) -> Place:
        return self.before._replace(newest=self.last)


class EventScripts:
    """The scripts of events, for one store. Methods block, and raise as `Link.run` does."""

    def __init__(self, server: RedisServer, limits: EventLimits, tail: EventTail) -> None:
        self.meta = server.key("e", "meta")
        self._server = server
        #: Names this store of this process among all that use the server.
        self._name = f"{server.process}-{secrets.token_hex(3)}"
        self._limits = limits
        self._tail = tail
        self._known = 0  # the highest number that the server has confirmed to this process

    def key(self, *names: str) -> bytes:
        """A key of the generation that this process knows."""
        return self._server.key("e", self._tail.generation, *names)

    def open(self, link: Link) -> Place:
        """Look at the server before anything else."""
        tail, info = self._tail, self._server.info
        own = max(self._known, tail.position)
        found_epoch, found_generation, *rest = link.run(
            _OPEN,
            [self.meta],
            [
                info.identity if info else "",
                new_epoch(),
                new_epoch(),
                _JUMP + secrets.randbelow(_JUMP),
                tail.generation,
                tail.epoch,
                own,
                tail.nonce if own == tail.position else b"",
                self._name,
            ],
        )
        place = Place(found_generation.decode(), found_epoch.decode(), *rest)
        if (place.generation, place.epoch) != (tail.generation, tail.epoch):
            self._known = 0
        return place

    def append(self, link: Link, appends: Sequence[Append], nonce: str) -> Stored:
        """Store appends, all of them; with the same nonce as the last ones nothing is stored again.

        Raises `Unknown` or `TooEarly`.
        """
        limits, generation = self._limits, self._tail.generation
        seconds = min(limits.seconds, LONGEST)
        arguments: list[Argument] = [
            generation,
            self._name,
            nonce,
            str(limits.young_seconds),
            str(seconds),
        ]
        for append in appends:
            channel = append.channel
            arguments += (
                channel,
                append.key or "",
                append.digest,
                limits.events_of.get(channel, limits.events),
                len(append.frames),
                *append.frames,
            )
        reply = link.run(_APPEND, [self.meta], arguments)
        if reply[0] == 0:
            raise Unknown
        if reply[0] == 2:
            raise TooEarly
        _, encoded, last, notices = reply[:4]
        epoch = encoded.decode()
        before = Place(generation, epoch, last, notices, 0)
        results: list[Appended | KeyReused] = []
        for place, append in zip(range(4, len(reply), 3), appends, strict=True):
            first, end, state = reply[place : place + 3]
            if state == 2:
                results.append(KeyReused(append.key or ""))
                continue
            results.append(Appended(first, end, repeated=state == 1, epoch=epoch))
            last = max(last, end)
        self._known = max(self._known, last)
        return Stored(before, results, last)

    def look(self, link: Link) -> Place:
        """Where the events are; also says that this process is there. Raises `Unknown`."""
        generation = self._tail.generation
        reply = link.run(_LOOK, [self.meta], [generation, self._name])
        if not reply[0]:
            raise Unknown
        _, epoch, *rest = reply
        return Place(generation, epoch.decode(), *rest)

    def send(self, link: Link, kind: str, bodies: Sequence[str]) -> tuple[Place, set[bytes]]:
        """Store notices. Returns the place behind them, and the processes that are there.

        Raises `Unknown`.
        """
        generation = self._tail.generation
        arguments: list[Argument] = [
            generation,
            _HERE_SECONDS,
            str(self._limits.young_seconds),
            kind,
            *bodies,
        ]
        reply = link.run(_SEND, [self.meta], arguments)
        if not reply[0]:
            raise Unknown
        _, epoch, newest, notices, there = reply
        return Place(generation, epoch.decode(), newest, notices, 0), set(there)

    def answer(self, link: Link, notice: int, number: int) -> None:
        """Store how many subscriptions this process has."""
        key = self.key("answers", str(notice))
        link.command("HSET", key, self._name, number)
        link.command("EXPIRE", key, _ANSWER_SECONDS)

    def answers(self, link: Link, notice: int) -> dict[bytes, int]:
        """What the processes have answered so far."""
        found = link.command("HGETALL", self.key("answers", str(notice)))
        return {
            process: int(number) for process, number in zip(found[::2], found[1::2], strict=True)
        }

    def leave(self, link: Link) -> None:
        """Say that this process is no longer there."""
        link.command("ZREM", self.key("here"), self._name)

    def oldest(self, link: Link) -> float:
        """Seconds since the oldest event, about; 0 if there is none."""
        first = link.command("ZRANGE", self.key("first"), 0, 0, "WITHSCORES")
        if not first:
            return 0.0
        number = int(first[1])
        seconds, microseconds = link.command("TIME")
        marks = link.command("ZRANGE", self.key("times"), 0, -1, "WITHSCORES")
        for newest, at in zip(marks[::2], marks[1::2], strict=True):
            if int(newest) >= number:
                return max(0.0, int(seconds) + int(microseconds) / 1e6 - float(at))
        return 0.0
