"""Moves what a Redis server has, see `sseflask.store.transfer`."""

from __future__ import annotations

import time
from collections.abc import Iterator

from sseflask.store.api import EventLimits, StoreError
from sseflask.store.epoch import new_epoch
from sseflask.store.redis.event_transfer import MovedEvents
from sseflask.store.redis.link import info_fields
from sseflask.store.redis.mark import MARK, unfinished
from sseflask.store.redis.pipeline import Command, Pipeline
from sseflask.store.redis.run_transfer import MovedRuns
from sseflask.store.run_api import RunLimits
from sseflask.store.transfer import Counts, EventHead, KeyPart, Part, RunPart

#: Seconds to wait for the processes of a service that has just been stopped: those that could not
#: say so count as there for about as long.
_LEAVING_SECONDS, _PAUSE = 8.0, 0.25

#: Seconds after which a process that moves, and has not said that it goes on, is taken for dead.
_ALIVE_SECONDS = 15

#: Commands, and bytes of parts, that are sent at once.
_BATCH, _BATCH_BYTES = 1000, 256 * 1024


class RedisTransfer:
    """A `Transfer` of a server's events and runs.

    While the server is marked no process uses it: see `sseflask.store.redis.mark`. The events'
    meta hash is stored last, before the mark is removed.
    """

    def __init__(self, url: str, event_limits: EventLimits, run_limits: RunLimits) -> None:
        self._pipeline = Pipeline(url)
        self._events = MovedEvents(self._pipeline, event_limits)
        self._runs = MovedRuns(self._pipeline, run_limits)
        self._mark = self._pipeline.key(MARK)
        self._alive = self._pipeline.key(MARK, "alive")
        self._generation = ""
        self._connected = False
        self._commands: list[Command] = []
        self._ends: list[tuple[int, RunPart]] = []  # which of their replies say how long a run is
        self._bytes = 0

    @property
    def name(self) -> str:
        return f"the Redis server at {self._pipeline.address.name}"

    def _connect(self) -> None:
        if not self._connected:
            info = self._pipeline.connect()
            self._identity = info.identity
            self._connected = True

    # -- from it -----------------------------------------------------------------------------------

    def open(self, *, alone: bool = True) -> None:
        self._connect()
        if self._pipeline.command("EXISTS", self._mark):
            raise unfinished(self._pipeline.address.name)
        if alone:
            self._check_unused()
        self._head = self._events.head()
        if self._head is None and self._runs.is_empty:
            raise StoreError(f"{self.name} has nothing with the prefix {self._prefix}")

    @property
    def _prefix(self) -> str:
        return self._pipeline.address.prefix

    def _check_unused(self) -> None:
        until = time.monotonic() + _LEAVING_SECONDS
        while users := max(self._events.users(), self._runs.users()):
            if time.monotonic() > until:
                processes = "a process" if users == 1 else f"{users} processes"
                raise StoreError(
                    f"{self.name} is in use by {processes}: stop the service, and try again"
                )
            time.sleep(_PAUSE)

    def head(self) -> EventHead | None:
        return self._events.head()

    def counts(self) -> Counts:
        counts = Counts()
        self._events.count(counts)
        self._runs.count(counts)
        return counts

    def parts(self) -> Iterator[Part]:
        yield from self._events.parts()
        yield from self._runs.parts()

    def check_unchanged(self) -> None:
        # A cluster that moves the keys meanwhile refuses to say that one is not there.
        self._pipeline.command("EXISTS", self._mark)
        if self._events.users() or self._runs.users() or self._events.head() != self._head:
            raise StoreError(f"{self.name} was used meanwhile: stop the service, and try again")

    # -- into it -----------------------------------------------------------------------------------

    def why_not(self, counts: Counts) -> str:
        self._connect()
        if self._pipeline.command("EXISTS", self._mark):
            until = time.monotonic() + _ALIVE_SECONDS + 1
            while self._pipeline.command("EXISTS", self._alive):
                if time.monotonic() > until:
                    return f"another process moves to {self.name}"
                time.sleep(_PAUSE)
            return ""  # there is room for what is there now, which will be deleted
        if reason := self._why_no_room(counts.room):
            return reason
        if not self._events.is_empty or not self._runs.is_empty:
            return (
                f"{self.name} is not empty: if nobody needs what it has, delete the keys that "
                f"begin with {{{self._prefix}}}:e: and {{{self._prefix}}}:r (FLUSHDB deletes "
                "all of a database); or choose another ?prefix= in the URL"
            )
        self._check_unused()
        return ""

    def _why_no_room(self, needed: int) -> str:
        try:
            found = info_fields(self._pipeline.command("INFO", "memory"))
        except StoreError:
            return ""  # the user may not ask
        most, used = int(found.get("maxmemory", 0)), int(found.get("used_memory", 0))
        if most and used + needed > most:
            return (
                f"{self.name} has {max(0, most - used) >> 20} MiB left (maxmemory), and about "
                f"{(needed >> 20) + 1} are needed"
            )
        return ""

    def begin(self) -> None:
        self._generation = new_epoch()
        pipeline = self._pipeline
        known, _, _ = pipeline.commands(
            [
                ("GET", self._mark),
                ("SET", self._mark, self._generation),
                ("SET", self._alive, self._generation, "EX", _ALIVE_SECONDS),
            ]
        )
        if known is None:
            # Not before it is marked: from here on none can begin to use it.
            try:
                self._check_unused()
            except StoreError:
                pipeline.command("DEL", self._mark, self._alive)
                self._generation = ""
                raise
        self._clear()
        self._events.begin(self._generation)
        self._runs.begin()

    def _clear(self) -> None:
        for part in "er":
            for keys in self._pipeline.keys(part, ""):
                self._pipeline.command("UNLINK", *keys)
            self._pipeline.command("UNLINK", self._pipeline.key(part))

    def take(self, part: Part) -> None:
        if isinstance(part, RunPart):
            self._commands += self._runs.commands(part)
            if part.ends:
                self._ends.append((len(self._commands) - 1, part))
            self._bytes += sum(map(len, part.frames)) + len(part.outcome) + len(part.notes)
        else:
            self._commands += self._events.commands(part)
            if not isinstance(part, KeyPart):
                self._bytes += sum(len(event.frame) for event in part.events)
        if self._bytes >= _BATCH_BYTES or len(self._commands) >= _BATCH:
            self._send()

    def _send(self) -> None:
        commands, ends = self._commands, self._ends
        self._commands, self._ends, self._bytes = [], [], 0
        mark, _, *replies = self._pipeline.commands(
            [
                ("GET", self._mark),
                ("SET", self._alive, self._generation, "EX", _ALIVE_SECONDS),
                *commands,
            ]
        )
        if mark != self._generation.encode():
            raise StoreError(f"{self.name} was flushed, or another process moves to it")
        for place, part in ends:
            self._runs.check(part, replies[place])

    def finish(self, head: EventHead | None) -> None:
        self._send()
        last = [] if head is None else self._events.last_commands(head, self._identity)
        if last:
            self._pipeline.commands(last)
        self._pipeline.command("DEL", self._mark, self._alive)
        self._generation = ""

    def abandon(self) -> None:
        if not self._generation:
            return
        self._pipeline.connect()
        if self._pipeline.command("GET", self._mark) == self._generation.encode():
            self._clear()
            self._pipeline.command("DEL", self._mark, self._alive)
        self._generation = ""

    def close(self) -> None:
        self._pipeline.close()
