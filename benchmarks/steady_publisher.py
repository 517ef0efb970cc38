"""A publisher that nothing holds up, beside streams: how long publishing takes meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable

from benchmarks.client.requester import Asker, NoAnswer
from benchmarks.due import Due


class SteadyPublisher:
    """Publishes at a rate, whatever becomes of the events before. Not thread-safe.

    An event is timed from the moment in which it was due: what waits for the answer to the one
    before is late, and that is the server's doing.

    Args:
        request: gives the request that publishes the event of a number.
        rate: events a second.
        first: the first one's number.
    """

    def __init__(
        self, request: Callable[[int], bytes], asker: Asker, rate: float, first: int = 0
    ) -> None:
        self._request = request
        self._asker = asker
        self._due = Due(rate)
        self.published = first
        self.took_ms: list[float] = []
        self.faults: list[str] = []

    def go(self) -> None:
        """Publish from now on."""
        self._due.go()

    def finish(self) -> None:
        """Publish no more; what is due is still published."""
        self._due.finish()

    @property
    def settled(self) -> bool:
        """Whether everything that was due has been answered."""
        return bool(self.faults) or not self._due.times

    def step(self) -> None:
        """Take an answer, or publish what is due."""
        now = time.monotonic()
        if not self._due.look(now) or self.faults:
            return
        try:
            if not self._asker.waiting:
                self._asker.ask(self._request(self.published))
            elif (status := self._asker.answer()) is not None:
                self.took_ms.append((time.monotonic() - self._due.times.popleft()) * 1e3)
                self.published += 1
                if not 200 <= status < 300:
                    self.faults.append(f"event {self.published - 1} refused: status {status}")
        except NoAnswer as error:
            self.faults.append(f"event {self.published} not published: {error}")
