"""Calls that wait for a connection: a few greenlets or threads make them, each with its own."""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from sseflask.loop import native
from sseflask.loop.callbacks import Done, Timeout, call_guarded, wait_for_callback
from sseflask.store.api import StoreBusy, StoreError
from sseflask.store.redis.link import Link

if TYPE_CHECKING:
    from sseflask.store.redis.server import RedisServer

log = logging.getLogger("sseflask")

Result = TypeVar("Result")

guard = partial(call_guarded, "a greenlet or thread of a Redis store")
"""Calls something whose errors must not end a greenlet or thread."""


class _Call(NamedTuple):
    function: Callable[[Link], object]
    done: Done
    until: float  # when nobody waits for it any more


class LinkCalls:
    """Calls that are begun in the order in which they came. Any thread or greenlet.

    Args:
        most: how many are made at the same time. With one each is over before the next one begins.
    """

    def __init__(self, server: RedisServer, most: int) -> None:
        self._server = server
        self._most = most
        self._waiting: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._lock = native.lock()  # of what follows
        self._workers = self._busy = 0
        self._over = threading.Event()

    @property
    def waiting(self) -> int:
        """How many calls wait."""
        return self._waiting.qsize()

    def submit(
        self, function: Callable[[Link], object], done: Done, until: float = math.inf
    ) -> None:
        """Have a function called with a link, unless it is too late then. Never blocks.

        ``done`` is called by who has made the call: in the main loop's greenlet, or the thread.
        """
        self._server.in_loop(self._put, _Call(function, done, until))

    def try_soon(self, function: Callable[[Link], object]) -> None:
        """`submit` if nobody waits, and a failure means that it will be tried again."""
        self.submit(function, _log_unexpected)

    def call(self, function: Callable[[Link], Result], patience: float) -> Result:
        """`submit`, and wait for the result. Raises what the function raises.

        `StoreBusy` after ``patience`` seconds, though the function may go on if it has begun.
        """
        # A slow server would do for a long time what nobody waits for, while more is added.
        submit = partial(self.submit, function, until=time.monotonic() + patience)
        try:
            result: Result = wait_for_callback(submit, patience)
        except Timeout:
            raise StoreBusy(
                f"the Redis server at {self._server.name} did not answer within {patience:g} s"
            ) from None
        return result

    def _put(self, call: _Call) -> None:
        with self._lock:
            self._busy += 1
            more = self._workers < min(self._busy, self._most)
            self._workers += more
        self._waiting.put(call)
        if more:
            self._server.start(self._work)

    def end(self) -> None:
        """End, after what was submitted before. In the main loop; never blocks."""
        if not self._workers:
            self._over.set()
        self._waiting.put(None)

    def close(self, seconds: float) -> None:
        """The same in any greenlet or thread, and wait for it, for some seconds at most."""
        self._server.in_loop(self.end)
        self._over.wait(seconds)

    def _work(self) -> None:
        link = self._server.link()
        while (call := self._waiting.get()) is not None:
            if time.monotonic() < call.until:
                _make(call, link)
            with self._lock:
                self._busy -= 1
        self._waiting.put(None)  # for the next worker
        link.close()
        with self._lock:
            self._workers -= 1
            if not self._workers:
                self._over.set()


def _make(call: _Call, link: Link) -> None:
    try:
        result = call.function(link)
    except Exception as error:
        guard(call.done, None, error)
    else:
        guard(call.done, result, None)


def _log_unexpected(_result: object, error: Exception | None) -> None:
    if error is not None and not isinstance(error, StoreError):
        log.error("a call to the Redis server failed", exc_info=error)
