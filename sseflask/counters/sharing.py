"""The numbers of this process, and where it shares them with the other workers of its server.

gunicorn's master takes a slot of a `Table` for each worker that it forks; the worker writes its
numbers there once a second. A process without a slot has its own numbers alone.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, MutableMapping
from typing import Any

from sseflask.counters import gauges
from sseflask.counters.counts import COUNTS
from sseflask.counters.gauges import Gauges
from sseflask.counters.table import Slot, Table

__all__ = ["Sharing", "sharing"]

log = logging.getLogger("sseflask")

#: How a master tells the one that takes its place of the table, and of what that holds.
_HANDED_ON = "_SSEFLASK_FIGURES"

#: Where a worker of gunicorn's keeps the number of its slot.
_SLOT = "sseflask_slot"


class Sharing:
    """The table of one server, and the slot of one process of it.

    Attributes:
        every_second: called once a second where `begin` was called, by a thread (under gevent a
            greenlet) of its own; what they raise is logged.
    """

    def __init__(self) -> None:
        self.every_second: list[Callable[[], object]] = []
        self._table: Table | None = None
        self._slot: int | None = None
        self._before: list[int] = []
        self._written: tuple[Gauges, list[int]] | None = None
        self._loop_lag = 0
        self._process = 0

    # -- gunicorn's master -------------------------------------------------------------------------

    def take(self, worker: Any) -> None:
        """Take a slot for a worker that is to be forked; harmless to repeat."""
        if hasattr(worker, _SLOT):
            return
        if self._table is None:
            self._table = _handed_on(os.environ) or Table(*_shape())
        number = self._table.take(worker)
        setattr(worker, _SLOT, number)
        if number is None:
            log.warning("the figures of a further worker are not counted: there are too many")

    def give_back(self, worker: Any) -> None:
        """Such a worker has ended."""
        if self._table is not None:
            self._table.give_back(worker)

    def hand_on(self, environment: MutableMapping[str, str]) -> None:
        """Let the program that is to take the place of this one go on with the table (SIGUSR2)."""
        if self._table is not None and self._table.descriptor >= 0:
            os.set_inheritable(self._table.descriptor, True)
            told = (self._table.descriptor, *_shape())
            environment[_HANDED_ON] = ",".join(map(str, told))

    # -- a worker ----------------------------------------------------------------------------------

    def begin(self, worker: Any) -> None:
        """Write this process's numbers to its worker's slot once a second from now on.

        Without a slot only `every_second` is called. Called again in the same process it does
        nothing.
        """
        if self._process == os.getpid():
            return
        self._process = os.getpid()
        self._slot = getattr(worker, _SLOT, None) if self._table is not None else None
        if self._slot is not None and self._table is not None:
            self._before = self._table.own(self._slot)
            self._written = None
            self.write()
        # Under gevent a greenlet, by its own Thread.
        threading.Thread(target=self._beat, name="sseflask-figures", daemon=True).start()

    def write(self) -> None:
        """Write the numbers of now, unless they are those of before. Never blocks."""
        table, slot = self._own_slot()
        if table is None:
            return
        now = self._gauges()
        counters = [a + b for a, b in zip(self._before, COUNTS.numbers(), strict=True)]
        if self._written == (now, counters):
            table.see(slot, time.monotonic())
        else:
            table.write(slot, time.monotonic(), now, counters)
            self._written = now, counters

    def read(self) -> list[Slot]:
        """The numbers of all workers, this one's as they are now, others' of a second ago at most.

        In a process without a slot its own. Never blocks.
        """
        table, _ = self._own_slot()
        if table is None:
            now = time.monotonic()
            return [Slot(0, os.getpid(), now, [*self._gauges()], COUNTS.numbers())]
        self.write()  # or what others have read of it would be more than what it says now
        return table.read()

    def claim(self, second: int) -> bool:
        """Whether the calling worker is the first that asks for a second. Never blocks."""
        table, _ = self._own_slot()
        return table is None or table.claim(second)

    @property
    def slot(self) -> int | None:
        """The slot of this process."""
        table, slot = self._own_slot()
        return None if table is None else slot

    def _own_slot(self) -> tuple[Table | None, int]:
        if self._slot is None or self._process != os.getpid():
            return None, -1
        return self._table, self._slot

    def _gauges(self) -> Gauges:
        return gauges.now()._replace(loop_lag=self._loop_lag)

    def _beat(self) -> None:
        while True:
            # All workers at the same moment, so that what is read in between is of one second.
            pause = 1.0 - time.time() % 1.0
            due = time.monotonic() + pause
            time.sleep(pause)
            self._loop_lag = max(0, int((time.monotonic() - due) * 1_000_000))
            for function in (self.write, *self.every_second):
                try:
                    function()
                except Exception:
                    log.exception("what is done with the figures each second failed")


def _handed_on(environment: MutableMapping[str, str]) -> Table | None:
    told = environment.pop(_HANDED_ON, "")
    if not told:
        return None
    descriptor, *shape = map(int, told.split(","))
    if tuple(shape) != _shape():
        os.close(descriptor)  # of a version that counts other things
        return None
    os.set_inheritable(descriptor, False)
    return Table(*_shape(), descriptor=descriptor)


def _shape() -> tuple[int, int]:
    return len(Gauges()), len(COUNTS.numbers())


#: That of this process, and of the processes that it forks.
sharing = Sharing()
