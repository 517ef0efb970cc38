"""Opens stores, one for each process.

An address chooses the backend: the URL of a Redis or Valkey server, see
`sseflask.store.redis.address`; or for SQLite a path, or ``":memory:"``.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from sseflask.defaults import MEMORY
from sseflask.loop.callbacks import register_main_loop, run_in_main_loop
from sseflask.store.api import EventLimits, EventStore
from sseflask.store.redis import is_redis
from sseflask.store.run_api import Endings, RunLimits, RunStore
from sseflask.store.sqlite import event_tables, run_tables
from sseflask.store.sqlite.event_store import SqliteEventStore
from sseflask.store.sqlite.file import FileFormat, other_format
from sseflask.store.sqlite.private_files import why_unusable
from sseflask.store.sqlite.run_store import SqliteRunStore

if TYPE_CHECKING:
    from sseflask.store.redis.rate_counter import RedisRateCounter


def open_event_store(address: str, limits: EventLimits) -> EventStore:
    """Make the store of an address. Nothing happens before it is followed."""
    if is_redis(address):
        # Not before it is needed: without it the package redis need not be installed.
        from sseflask.store.redis.event_store import RedisEventStore

        return RedisEventStore(address, limits)
    return SqliteEventStore(address, limits)


def open_run_store(address: str, limits: RunLimits, endings: Endings) -> RunStore:
    """The same for a store of runs."""
    if is_redis(address):
        from sseflask.store.redis.run_store import RedisRunStore

        return RedisRunStore(address, limits, endings)
    return SqliteRunStore(address, limits, endings)


def is_on_server(address: str) -> bool:
    """Whether a server keeps the store, for all machines that use it."""
    return is_redis(address)


def event_store_problem(address: str) -> str:
    """Why the store can't be used, as far as a look at it tells, and what to do; else empty."""
    return _problem(address, event_tables.FORMAT)


def run_store_problem(address: str) -> str:
    """The same of a store of runs."""
    return _problem(address, run_tables.FORMAT)


def _problem(path: str, format: FileFormat) -> str:
    if is_redis(path):
        return _redis_problem(path)
    return "" if path == MEMORY else why_unusable(path) or other_format(path, format)


def _redis_problem(url: str) -> str:
    try:
        from sseflask.store.redis.address import RedisAddress

        RedisAddress(url)
    except ImportError:
        return 'a store on Redis needs the package redis: pip install "sseflask[redis]"'
    except ValueError as error:
        return str(error)
    return ""


class Closable(Protocol):
    """Something that is closed before its process ends."""

    def close(self) -> None:
        """End it. Blocks for a short time."""


Value = TypeVar("Value", bound=Closable)


def open_rate_counter(url: str) -> RedisRateCounter:
    """Make the counter of a Redis server. Under gevent in the main thread's event loop."""
    from sseflask.store.redis.rate_counter import RedisRateCounter

    return RedisRateCounter(url)


class PerProcess(Generic[Value]):
    """Makes something at its first use, and again in each process that is forked off.

    Thread-safe. Closed at the end of the process. Under gevent ``make`` is called in the main
    thread's event loop, as subscribers are served there.
    """

    def __init__(self, make: Callable[[], Value]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._value: Value | None = None
        self._process = 0
        register_main_loop()

    def get(self) -> Value:
        """The one of this process. Blocks for a short time if it has to be made."""
        value = self._value
        # What a parent process has made does not work in its children.
        if value is None or self._process != os.getpid():
            value = run_in_main_loop(self._made)
        return value

    @property
    def made(self) -> bool:
        """Whether this process has one."""
        return self._value is not None and self._process == os.getpid()

    def close(self) -> None:
        """Close it in this process; the next use makes it again. Blocks for a short time."""
        with self._lock:
            value, self._value = self._value, None
        atexit.unregister(self.close)
        if value is not None and self._process == os.getpid():
            value.close()

    def _made(self) -> Value:
        with self._lock:
            if self._value is None or self._process != os.getpid():
                self._value, self._process = self._make(), os.getpid()
                atexit.register(self.close)
            return self._value
