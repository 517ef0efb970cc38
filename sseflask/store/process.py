"""What runs for a store in each process: its thread, from the first use on; safe across forks."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable
from typing import Any, Generic, Literal, TypeVar
from weakref import WeakSet

from sseflask.loop.callbacks import (
    Done,
    Timeout,
    register_main_loop,
    run_in_main_loop,
    wait_for_callback,
)
from sseflask.store.api import StoreError
from sseflask.store.sqlite.thread import StoreThread, StoreType

__all__ = ["SHORT_PATIENCE", "PerProcess", "Running", "StoreBusy"]

#: Seconds to wait for the store's thread: longer than SQLite waits for another process.
_PATIENCE = 20.0

#: Seconds that a question waits whose answer may be that nobody knows.
SHORT_PATIENCE = 0.5

#: Seconds that a fork waits for what the thread does.
_FORK_SECONDS = 10.0

#: Seconds that the end of a process waits for what was handed over before.
_LAST_SECONDS = 2.0


class StoreBusy(StoreError):
    """It has not answered in time; what was asked of it may still be done."""


class Running(Generic[StoreType]):
    """A store's thread in this process, until `close` or the process's end. Thread-safe.

    Args:
        thread: not closed yet.
    """

    def __init__(self, thread: StoreThread[StoreType]) -> None:
        self.process = os.getpid()
        self._thread = thread
        atexit.register(self._end)
        _all.add(self)

    def call(self, function: Callable[[StoreType], Any], patience: float = _PATIENCE) -> Any:
        """Call a function with the store, in its thread, and wait for the result.

        Raises:
            StoreError: the store can't do it now.
            StoreBusy: it has not answered within ``patience`` seconds.
        """
        return self.wait(lambda done: self._thread.call(function, done), patience)

    def wait(self, start: Callable[[Done], None], patience: float = _PATIENCE) -> Any:
        """Start something that calls back, and wait for its result; raises as `call` does."""
        try:
            return wait_for_callback(start, patience)
        except Timeout:
            message = f"the {self._thread.name} did not answer within {patience} s"
            raise StoreBusy(message) from None

    def pause(self) -> Callable[[], object] | None:
        """See `StoreThread.pause`."""
        return self._thread.pause(_FORK_SECONDS)

    def close(self) -> None:
        """End the thread after what was handed over. Blocks shortly."""
        _all.discard(self)
        atexit.unregister(self._end)
        self._end()

    def _end(self) -> None:
        if os.getpid() == self.process:
            self._before_end()
            self._thread.close()
            self._thread.join(_LAST_SECONDS)

    def _before_end(self) -> None:
        """Hand over what is to be done last."""


RunningType = TypeVar("RunningType", bound=Running[Any])


class PerProcess(Generic[RunningType]):
    """Starts something at its first use, and again in each process that is forked off. Thread-safe.

    Args:
        start: starts it; called in the main thread's event loop under gevent, as subscribers are
            served there, whoever comes first.
    """

    def __init__(self, start: Callable[[], RunningType]) -> None:
        self._start = start
        self._lock = threading.Lock()
        self._running: RunningType | None = None
        register_main_loop()

    def get(self) -> RunningType:
        """What runs in this process."""
        running = self._running
        # What a parent process has started does not run in its children.
        if running is None or running.process != os.getpid():
            running = run_in_main_loop(self._started)
        return running

    def health(self) -> Literal["available", "unavailable", "busy"]:
        """Whether the store is open or can be opened now; busy where it does not say so at once.

        Blocks for half a second at most.
        """
        try:
            self.get().call(lambda _store: None, SHORT_PATIENCE)
        except StoreBusy:
            return "busy"
        except StoreError:
            return "unavailable"
        return "available"

    def close(self) -> None:
        """End it in this process; the next use starts it again. Blocks shortly."""
        with self._lock:
            running, self._running = self._running, None
        if running is not None:
            running.close()

    def _started(self) -> RunningType:
        with self._lock:
            if self._running is None or self._running.process != os.getpid():
                self._running = self._start()
            return self._running


_all: WeakSet[Running[Any]] = WeakSet()
_held: list[Callable[[], object]] = []


def _before_fork() -> None:
    """No SQLite database may be open while the process is copied."""
    for running in list(_all):
        if running.process == os.getpid():
            go_on = running.pause()
            if go_on is not None:
                _held.append(go_on)


def _after_fork() -> None:
    while _held:
        _held.pop()()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_held.clear)
