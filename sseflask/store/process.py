"""Things that each process makes for itself: at the first use, and anew after a fork."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from sseflask.loop.callbacks import register_main_loop, run_in_main_loop


class Closable(Protocol):
    """Something that is closed before its process ends."""

    def close(self) -> None:
        """End it. Blocks shortly."""


Value = TypeVar("Value", bound=Closable)


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
        """The one of this process. Blocks shortly if it is to be made."""
        value = self._value
        # What a parent process has made does not work in its children.
        if value is None or self._process != os.getpid():
            value = run_in_main_loop(self._made)
        return value

    def close(self) -> None:
        """Close it in this process; the next use makes it again. Blocks shortly."""
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
