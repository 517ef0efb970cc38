"""Published events: numbered, stamped with the time, each counted and timed on arrival."""

from __future__ import annotations

import contextlib
import math
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks.client.requester import Asker, NoAnswer

SIZE = 92
"""Bytes of data in an event, which with `data: ` and its blank line has a hundred."""

LOG_VARIABLE = "SSEFLASK_CHANNEL_LOG"
"""Names the file in which sseflask stores events; others have none and ignore it."""

RUN_LOG_VARIABLE = "SSEFLASK_RUN_LOG"
"""The same for runs, which are completions with all their chunks."""


def event(number: int, size: int = SIZE) -> bytes:
    """Give the data of an event, on one line: its number, the time in nanoseconds, filling."""
    return b"%d %d " % (number, time.monotonic_ns()) + b"x" * (
        size - len(str(number)) - _LENGTH_OF_STAMP
    )


_LENGTH_OF_STAMP = len(b"  %d" % time.monotonic_ns())


@contextlib.contextmanager
def logs() -> Iterator[dict[str, str]]:
    """Have a folder for the server's logs; gives what is to be in its environment.

    Files, not memory: history that survives the process is what is deployed.
    """
    with tempfile.TemporaryDirectory(prefix="benchmark-logs-") as directory:
        yield {
            LOG_VARIABLE: str(Path(directory) / "channels.sqlite3"),
            RUN_LOG_VARIABLE: str(Path(directory) / "runs.sqlite3"),
        }


class Deliveries:
    """Counts the events that arrive on some streams and, while `timing`, how long they took.

    `delays` are nanoseconds from the moment before the event was sent, by the event's number.
    """

    def __init__(self) -> None:
        self.received = 0
        self.timing = False
        self.delays: defaultdict[int, list[int]] = defaultdict(list)

    def number(self, data: bytes) -> int:
        """Count an event and give its number; ValueError where it is none of those published."""
        word, sent, _ = data.split(b" ", 2)
        number = int(word)
        self.count(number, int(sent))
        return number

    def count(self, number: int, sent: int) -> None:
        """Count an event of this number, sent at this moment (nanoseconds)."""
        self.received += 1
        if self.timing:
            self.delays[number].append(time.monotonic_ns() - sent)


class Publisher:
    """Publishes event by event while it is told to, each when it is due and there is room for it.

    `request` gives the request that publishes the event of a number. `askers` take turns. The
    next event waits for the answer to the one before, and until no more than `ahead` are on their
    way; one has come when `received` has grown by `copies`. So a slow server publishes less, and
    what is timed is not a queue whose length is the harness's choice.
    """

    def __init__(
        self,
        request: Callable[[int], bytes],
        askers: Sequence[Asker],
        received: Callable[[], int],
    ) -> None:
        self._request = request
        self._askers = askers
        self._received = received
        self._asked: Asker | None = None
        self._pause = 0.0
        self._due = math.inf
        self._ahead = 1
        self._owed = 0
        self.copies = 0
        self.published = 0
        self.faults: list[str] = []

    def go(self, rate: float, ahead: int = 1) -> None:
        """Publish from now on at this rate at most."""
        self._pause = 1 / rate
        self._ahead = ahead
        self._due = time.monotonic()

    def finish(self) -> None:
        """Publish no more; what is under way is still waited for."""
        self._due = math.inf

    @property
    def settled(self) -> bool:
        """Whether everything published has been answered and has reached everybody."""
        return self._asked is None and self._received() >= self._owed

    def step(self) -> None:
        """Take an answer, or publish what is due."""
        if self.faults:
            return
        try:
            if self._asked is not None:
                self._take(self._asked)
            elif (now := time.monotonic()) >= self._due and self._has_room():
                self._publish(now)
        except NoAnswer as error:
            self.faults.append(f"event {self.published - 1} not published: {error}")
            self._asked = None

    def _has_room(self) -> bool:
        return self._owed - self._received() <= (self._ahead - 1) * self.copies

    def _publish(self, now: float) -> None:
        asker = self._askers[self.published % len(self._askers)]
        # One that could not be sent in time does not let others follow faster.
        self._due = max(self._due + self._pause, now)
        self.published += 1
        asker.ask(self._request(self.published - 1))
        self._asked = asker
        self._owed += self.copies

    def _take(self, asker: Asker) -> None:
        status = asker.answer()
        if status is None:
            return
        self._asked = None
        if not 200 <= status < 300:
            self.faults.append(f"event {self.published - 1} refused: status {status}")
