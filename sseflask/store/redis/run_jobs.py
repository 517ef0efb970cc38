"""What a store of runs does one after another, with a connection for it."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from sseflask.loop.callbacks import Done, Timeout, wait_for_callback
from sseflask.store.api import StoreBusy, StoreError
from sseflask.store.redis.link import Link
from sseflask.store.redis.server import PATIENCE, RedisServer, guard

log = logging.getLogger("sseflask")

Result = TypeVar("Result")


class RunJobs:
    """The calls that one greenlet or thread makes, in order. Any thread may add one."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._waiting: queue.SimpleQueue[tuple[Callable[[Link], object], Done] | None]
        self._waiting = queue.SimpleQueue()
        self._over = threading.Event()

    @property
    def waiting(self) -> int:
        """How many calls wait."""
        return self._waiting.qsize()

    def submit(self, function: Callable[[Link], object], done: Done) -> None:
        """Call a function after those that were submitted before. Never blocks.

        ``done`` is called in the main loop's greenlet, or the thread, that makes the calls.
        """
        self._server.in_loop(self._waiting.put, (function, done))

    def try_soon(self, function: Callable[[Link], object]) -> None:
        """The same if nobody waits for it: what has to be done is tried again every second."""
        self.submit(function, _ignore)

    def call(self, function: Callable[[Link], Result]) -> Result:
        """The same, and wait for the result. Raises what the function raises, or `StoreBusy`."""
        try:
            result: Result = wait_for_callback(partial(self.submit, function), PATIENCE)
        except Timeout:
            raise StoreBusy(f"the run log did not answer within {PATIENCE:g} s") from None
        return result

    def close(self, seconds: float) -> None:
        """End, after what was submitted before. Blocks for some seconds at most."""
        self._server.in_loop(self._waiting.put, None)
        self._over.wait(seconds)

    def run(self) -> None:
        """Make the calls, until it is closed."""
        link = self._server.link()
        while (job := self._waiting.get()) is not None:
            function, done = job
            try:
                result = function(link)
            except Exception as error:
                if not isinstance(error, StoreError):
                    log.exception("a call to the run log failed")
                guard(done, None, error)
            else:
                guard(done, result, None)
        link.end()
        self._over.set()


def _ignore(_result: object, _error: Exception | None) -> None:
    pass
