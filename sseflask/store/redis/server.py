"""The Redis server of a process: whether it is there, what is checked, and who may call it."""

from __future__ import annotations

import _thread
import logging
import os
import random
import secrets
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar
from weakref import WeakSet

from redis.exceptions import ResponseError

from sseflask.loop import native
from sseflask.loop.callbacks import Done, EventLoop
from sseflask.store.api import Durability, Health, Problem, StoreBusy, StoreError
from sseflask.store.redis.address import RedisAddress
from sseflask.store.redis.errors import store_error, stores_nothing
from sseflask.store.redis.link import Link, ServerInfo, info_fields
from sseflask.store.redis.link_calls import LinkCalls, guard
from sseflask.store.redis.mark import MARK, unfinished

log = logging.getLogger("sseflask")

#: Seconds to wait for a call, and for one that the caller can do without.
PATIENCE, SHORT_PATIENCE = 20.0, 0.5

#: Connections at most for calls, beside those that stores have for themselves.
_WORKERS = 4

#: Seconds between two attempts to reach a server that is away: the first and the longest pause.
_SHORTEST, _LONGEST = 0.1, 1.0

#: Seconds between two lines of the log which say that the server can't store anything.
_REFUSAL_SECONDS = 60.0

#: Not the module's own numbers, of which an application may have chosen the beginning.
_jitter = random.Random()

Result = TypeVar("Result")


Check = Callable[[Link, ServerInfo], object]
"""Looks at a server before anything else happens there; may use the link, and raise."""


class RedisServer:
    """One server, for all stores of this process that have the same address.

    Any thread or greenlet may use what is public, but links belong to the main thread's event loop,
    or without gevent to any one thread. There are no native threads: under gevent the greenlets of
    the main thread's loop do the I/O.

    While the server is away every call fails at once, and one greenlet or thread tries to reach it.
    """

    def __init__(self, url: str) -> None:
        self.address = RedisAddress(url)
        self.name, self.key = self.address.name, self.address.key
        #: Names this process among those that use the server.
        self.process = f"{os.getpid()}-{secrets.token_hex(6)}"
        self.info: ServerInfo | None = None  # of the last connection that was made
        self._loop = EventLoop.current()
        self._checks: dict[Check, str | None] = {}  # and the identity that each has seen last
        #: How many checks have been added so far.
        self.checks = 0
        self._check_lock = threading.Lock()
        self._links: WeakSet[Link] = WeakSet()
        self._calls = LinkCalls(self, _WORKERS)
        self._state = native.lock()  # of what follows
        self._away: StoreError | None = None
        self._away_since = 0.0  # seconds since the epoch
        self._read_only: Problem | None = None
        self._log_read_only_at = 0.0
        self._there = threading.Event()
        self._there.set()
        self._ended = threading.Event()
        self._users = 0

    @staticmethod
    def open(url: str) -> RedisServer:
        """The server of a URL in this process; each user calls `close` once. Never blocks.

        Under gevent to be called in the main thread's event loop. Raises `ValueError`, see
        `RedisAddress`.
        """
        place = os.getpid(), url
        with _lock:
            server = _servers.get(place)
            if server is None:
                server = _servers[place] = RedisServer(url)
            server._users += 1
        return server

    def close(self) -> None:
        """Leave; with the last user all links are closed. Never blocks."""
        with _lock:
            self._users -= 1
            if self._users:
                return
            for place, server in list(_servers.items()):
                if server is self:
                    del _servers[place]
        with self._state:
            self._away = StoreError(f"the connection to the Redis server at {self.name} is closed")
            self._away.reason = "the connection to it is closed"
        self.in_loop(self._end)

    def _end(self) -> None:
        self._ended.set()
        self._there.set()
        for link in list(self._links):
            link.end()
        self._calls.end()

    def link(self) -> Link:
        """Make a connection of one's own, for one greenlet or thread of `start`."""
        link = Link(self)
        self._links.add(link)
        return link

    def start(self, function: Callable[..., object], *arguments: object) -> None:
        """Run a function in a greenlet of the main thread's loop, or a thread. Never blocks.

        What it raises is logged.
        """
        self.in_loop(self._start, function, *arguments)

    def _start(self, function: Callable[..., object], *arguments: object) -> None:
        # Not threading.Thread, which waits for what it has started: not possible in the loop.
        _thread.start_new_thread(partial(guard, function, *arguments), ())

    def in_loop(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call what does not block in the main thread's loop; now, if this is it. Never blocks."""
        if EventLoop.current() is self._loop:
            function(*arguments)
        else:
            self._loop.call_soon_threadsafe(function, *arguments)

    # -- calls -------------------------------------------------------------------------------------

    def call(self, function: Callable[[Link], Result], patience: float = PATIENCE) -> Result:
        """Call a function with a link, in a greenlet or thread that may block; return its result.

        Blocks the calling greenlet or thread only. Raises what the function raises; `StoreError` at
        once if the server is away; `StoreBusy` after ``patience`` seconds, though the function may
        go on if it has begun.
        """
        self.raise_if_away()
        return self._calls.call(function, patience)

    def submit(self, function: Callable[[Link], object], done: Done) -> None:
        """The same without waiting: ``done`` is called in any greenlet or thread. Never blocks."""
        away = self._away
        if away is not None:
            done(None, away)
        else:
            self._calls.submit(function, done)

    # -- whether it is there -----------------------------------------------------------------------

    @property
    def available(self) -> bool:
        """Whether it is not known to be away."""
        return self._away is None

    def raise_if_away(self) -> None:
        """Raise the `StoreError` that says why, if the server is known to be away."""
        if self._away is not None:
            # A new one: an error that is raised again and again grows.
            error = type(self._away)(*self._away.args)
            error.reason = self._away.reason
            raise error

    def wait_until_available(self, seconds: float) -> bool:
        """Block while it is away, for some seconds at most; whether it is available then."""
        self._there.wait(seconds)
        return self.available

    @property
    def closed(self) -> bool:
        return self._ended.is_set()

    def set_read_only(self, error: StoreError) -> None:
        """Nothing can be stored now. Logged at most once a minute. Any greenlet or thread."""
        now = time.monotonic()
        with self._state:
            if self._read_only is None:
                self._read_only = Problem(error.reason, time.time())
            if now < self._log_read_only_at:
                return
            self._log_read_only_at = now + _REFUSAL_SECONDS
        log.warning("%s", error)

    def set_stores(self) -> None:
        """Undo `set_read_only`."""
        if self._read_only is not None:
            with self._state:
                self._read_only = None

    def set_away(self, error: StoreError) -> None:
        """All calls fail with this error until the server can be reached. In the event loop."""
        with self._state:
            if self._away is not None:
                return
            self._away, self._away_since = error, time.time()
            self._there.clear()
        log.warning("%s", error)
        self._start(self._probe, time.monotonic())

    def _probe(self, since: float) -> None:
        """Try to reach the server until it is there."""
        link, pause = Link(self, probes=True), _SHORTEST
        self._links.add(link)
        while not self._ended.wait(pause * _jitter.uniform(0.5, 1.0)):
            pause = min(2 * pause, _LONGEST)
            try:
                link.connect()
            except StoreError:
                continue
            for other in list(self._links):
                other.renew()
            with self._state:
                if self.closed:
                    break
                self._away = None
                self._there.set()
            log.warning(
                "the Redis server at %s is there again, after %.1f s",
                self.name,
                time.monotonic() - since,
            )
            break
        link.close()

    # -- checks ------------------------------------------------------------------------------------

    def add_check(self, check: Check) -> None:
        """Have a function look at the server before anything else happens on a link.

        It is called for the first link, and whenever a link finds a server with another identity,
        or with none; one call at a time. If it raises, the link fails.
        """
        with self._state:
            self._checks[check] = None
            self.checks += 1

    def remove_check(self, check: Check) -> None:
        """Undo `add_check`."""
        with self._state:
            del self._checks[check]

    def check(self, link: Link, info: ServerInfo) -> int:
        """Do the checks for a link that has just been made. Returns how many had been added."""
        before, self.info = self.info, info
        if self.warning() and (before is None or before.policy != info.policy):
            log.warning("the Redis server at %s: %s", self.name, self.warning())
        if before is not None and before.identity != info.identity:
            # They lead to a server that is no longer the master, perhaps without knowing it.
            for other in list(self._links):
                if other.identity not in (None, info.identity):
                    other.renew()
        if link.command("EXISTS", self.key(MARK)):
            error = unfinished(self.name)
            self.set_away(error)
            raise error
        try:
            link.try_commands()
        except ResponseError as error:
            if not stores_nothing(error):
                raise
            self.set_read_only(store_error(error, self.name))
        with self._check_lock:
            with self._state:
                added, checks = self.checks, list(self._checks.items())
            for check, seen in checks:
                if not info.identity or seen != info.identity:
                    check(link, info)
                    with self._state:
                        if check in self._checks:
                            self._checks[check] = info.identity
            return added

    # -- for all stores ----------------------------------------------------------------------------

    def health(self) -> Health:
        """See `Store.health`."""
        try:
            self.call(Link.try_commands, SHORT_PATIENCE)
        except StoreBusy:
            return "busy" if self.available else "unavailable"
        except StoreError:
            return "read_only" if self.available and self._read_only else "unavailable"
        return "available"

    def problem(self) -> Problem | None:
        """See `Store.problem`."""
        away = self._away
        return self._read_only if away is None else Problem(away.reason, self._away_since)

    def warning(self) -> str:
        """See `Store.warning`."""
        policy = "" if self.info is None else self.info.policy
        if policy in ("", "noeviction"):
            return ""
        return (
            f"it throws keys away when its memory is full (maxmemory-policy {policy}): events and "
            "completions go before their time, and what is repeated with its Idempotency-Key may "
            "be stored twice; set noeviction"
        )

    def durability(self) -> Durability:
        """See `Store.durability`: on a disk if the server writes every change to its own."""
        return "disk" if self.info is not None and self.info.durable else "ephemeral"

    def used_bytes(self) -> int:
        """The memory that the server uses in all. Blocks for half a second at most."""
        return int(info_fields(self.call(_memory, SHORT_PATIENCE)).get("used_memory", 0))


def _memory(link: Link) -> bytes:
    text: bytes = link.command("INFO", "memory")
    return text


_lock = native.lock()
_servers: dict[tuple[int, str], RedisServer] = {}
