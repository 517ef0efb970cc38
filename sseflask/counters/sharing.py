"""The counters of this process, shared with the other workers of its server.

gunicorn's master reserves a slot of a `Table` for each worker that it forks; the worker writes its
numbers there once a second. A process without a slot has its own numbers alone.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, MutableMapping
from typing import Any

from sseflask.counters.counts import COUNTS, Gauges, current_gauges
from sseflask.counters.table import LAYOUT, Slot, Table

log = logging.getLogger("sseflask")

#: The environment variable that tells a new master the descriptor and the shape of the table.
_INHERITED = "_SSEFLASK_FIGURES"

#: The attribute of gunicorn's worker that has the number of its slot.
_SLOT = "sseflask_slot"


class Sharing:
    """This process's slot in the table of counters that all workers share.

    Attributes:
        every_second: functions that are called once a second after `begin`, in a thread (under
            gevent a greenlet) for them; their exceptions are logged.
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
        """Reserve a slot for a worker that is to be forked; harmless to repeat."""
        if hasattr(worker, _SLOT):
            return
        if self._table is None:
            self._table = _inherited(os.environ) or Table(*_shape())
        number = self._table.take(worker)
        setattr(worker, _SLOT, number)
        if number is None:
            log.warning("the figures of another worker are not counted: there are too many workers")

    def release(self, worker: Any) -> None:
        if self._table is not None:
            self._table.release(worker)

    def pass_on(self, environment: MutableMapping[str, str]) -> None:
        """Pass the table to the master that replaces this one (SIGUSR2)."""
        if self._table is not None and self._table.descriptor >= 0:
            os.set_inheritable(self._table.descriptor, True)
            inherited = (self._table.descriptor, *_shape(), LAYOUT)
            environment[_INHERITED] = ",".join(map(str, inherited))

    # -- a worker ----------------------------------------------------------------------------------

    def begin(self, worker: Any) -> None:
        """Write this process's numbers to its slot once a second from now on. Idempotent.

        Without a slot only `every_second` is called.
        """
        if self._process == os.getpid():
            return
        self._process = os.getpid()
        self._slot = getattr(worker, _SLOT, None) if self._table is not None else None
        if self._slot is not None and self._table is not None:
            self._before = self._table.own(self._slot)
            self._written = None
            self.write()
        # Under gevent a greenlet: threading is patched.
        threading.Thread(target=self._beat, name="sseflask-figures", daemon=True).start()

    def write(self) -> None:
        """Write the current numbers if they have changed. Never blocks."""
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
        """The numbers of all workers: this one's current ones, others' of a second ago at most.

        In a process without a slot its own numbers alone. Never blocks.
        """
        table, _ = self._own_slot()
        if table is None:
            now = time.monotonic()
            return [Slot(0, os.getpid(), now, [*self._gauges()], COUNTS.numbers())]
        self.write()  # so that no other worker reads a smaller number later
        return table.read()

    def claim(self, second: int) -> bool:
        """Whether the calling worker is the first to claim a second. Never blocks."""
        table, _ = self._own_slot()
        return table is None or table.claim(second)

    @property
    def slot(self) -> int | None:
        table, slot = self._own_slot()
        return None if table is None else slot

    def _own_slot(self) -> tuple[Table | None, int]:
        if self._slot is None or self._process != os.getpid():
            return None, -1
        return self._table, self._slot

    def _gauges(self) -> Gauges:
        return current_gauges()._replace(loop_lag=self._loop_lag)

    def _beat(self) -> None:
        while True:
            # All workers write at the same moment, so that a reader sees the same second of all.
            pause = 1.0 - time.time() % 1.0
            due = time.monotonic() + pause
            time.sleep(pause)
            self._loop_lag = max(0, int((time.monotonic() - due) * 1_000_000))
            for function in (self.write, *self.every_second):
                try:
                    function()
                except Exception:
                    log.exception("a function of the figures failed")


def _inherited(environment: MutableMapping[str, str]) -> Table | None:
    inherited = environment.pop(_INHERITED, "")
    if not inherited:
        return None
    descriptor, *shape = map(int, inherited.split(","))
    if tuple(shape) != (*_shape(), LAYOUT):
        os.close(descriptor)  # of a version with other counters, or another table
        return None
    os.set_inheritable(descriptor, False)
    return Table(*_shape(), descriptor=descriptor)


def _shape() -> tuple[int, int]:
    return len(Gauges()), len(COUNTS.numbers())


#: Of this process and the processes that it forks.
sharing = Sharing()
