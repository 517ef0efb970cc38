"""No SQLite database may be open while ``os.fork`` copies the process.

The copy of an open database takes the locks of the first process for its own
(https://www.sqlite.org/howtocorrupt.html, section 2.6).
"""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet

#: Seconds for which a fork waits for what a thread does.
_SECONDS = 10.0


class Pausable(Protocol):
    """What has a database open."""

    process: int

    def pause(self, seconds: float) -> bool:
        """Close the database until `resume` is called.

        Blocks the native thread for some seconds at most. Returns whether it is closed; if not,
        `resume` must not be called.
        """

    def resume(self) -> None: ...


there: WeakSet[Pausable] = WeakSet()
"""Those that are paused for a fork, in the process that has begun them."""

_paused: list[Pausable] = []


def _before() -> None:
    _paused[:] = [
        each for each in list(there) if each.process == os.getpid() and each.pause(_SECONDS)
    ]


def _after() -> None:
    while _paused:
        _paused.pop().resume()


os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_paused.clear)
