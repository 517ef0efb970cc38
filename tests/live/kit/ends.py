"""Readers of a stream that note when they got its end."""

from __future__ import annotations

import threading
import time

from tests.live.kit.clients import Stream
from tests.live.kit.events import Sent


class EndReader:
    """Reads a stream to its end in a thread.

    Attributes:
        events: those that it has read so far.
        ended_at: the monotonic time at which it got the end.
    """

    def __init__(self, stream: Stream) -> None:
        self.events: list[Sent] = []
        self.ended_at = 0.0
        self._stream = stream
        self._problem: BaseException | None = None
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        try:
            for event in self._stream:
                self.events.append(event)
            self.ended_at = time.monotonic()
        except (AssertionError, OSError) as problem:
            self._problem = problem

    def all(self) -> list[Sent]:
        """All events, once it has the end."""
        self._thread.join(30)
        assert not self._thread.is_alive(), f"it still waits, after {self.events[-2:]}"
        assert self._problem is None, f"cut short: {self._problem!r}"
        return self.events
