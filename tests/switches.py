"""Finds greenlets that switch while their thread holds a native lock, see `sseflask.loop`.

For programs under gevent that a test starts. To be used before any other module of sseflask is
imported, as some make their locks then.
"""

from __future__ import annotations

import traceback
from collections import Counter
from typing import Any

import greenlet

from sseflask.loop import native

__all__ = ["watch_switches"]

_ident = native.original("_thread", "get_ident")

_held: Counter[int] = Counter()


class _Lock:
    """Stands for a native lock, and counts by how often its thread holds it."""

    def __init__(self, lock: Any) -> None:
        self._lock = lock
        self._depth = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        acquired: bool = self._lock.acquire(blocking, timeout)
        if acquired:
            self._depth += 1
            _held[_ident()] += 1
        return acquired

    def release(self) -> None:
        self._depth -= 1
        _held[_ident()] -= 1
        self._lock.release()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class _RLock(_Lock):
    """The same of one that can be taken again; the rest is what `threading.Condition` asks for."""

    def _is_owned(self) -> bool:
        owned: bool = self._lock._is_owned()
        return owned

    def _release_save(self) -> tuple[Any, int]:
        depth, self._depth = self._depth, 0
        _held[_ident()] -= depth
        return self._lock._release_save(), depth

    def _acquire_restore(self, state: tuple[Any, int]) -> None:
        self._lock._acquire_restore(state[0])
        self._depth = state[1]
        _held[_ident()] += state[1]


def watch_switches() -> list[str]:
    """Watch the calling thread from here on.

    Returns:
        where it has switched with a lock held: grows, and should stay empty.
    """
    lock, rlock = native.lock, native.rlock
    native.lock = lambda: _Lock(lock())
    native.rlock = lambda: _RLock(rlock())
    found: list[str] = []

    def trace(_event: str, greenlets: tuple[Any, Any]) -> None:
        if _held[_ident()]:
            found.append("".join(traceback.format_stack(greenlets[0].gr_frame)))

    greenlet.settrace(trace)
    return found
