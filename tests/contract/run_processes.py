"""What other processes do with a run store of whatever backend."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

from sseflask.store.open import open_run_store
from sseflask.store.run_api import Run, RunLimits, RunStore
from tests.contract.run_stores import (
    DAY,
    ENDINGS,
    FINISHED,
    Listener,
    Place,
    begun,
    fresh,
    opened,
    put,
)
from tests.processes import say

#: The number of frames that each run is to have.
FRAMES = 40


class Heir(Listener):
    """Goes on with what it inherits, to its end."""

    def __init__(self, store: RunStore) -> None:
        super().__init__()
        self.store = store

    def inherited(self, run: Run, successor: bytes) -> None:
        super().inherited(run, successor)
        say(run.id)
        threading.Thread(target=self.write, args=(run,), daemon=True).start()

    def write(self, run: Run) -> None:
        for number in range(run.last + 1, FRAMES):
            self.store.wait_for_room(run.key)
            put(self.store, run, number, 1)
            self.wait_for_frame(run, number)
        put(self.store, run, FRAMES, 1, FINISHED)


def _never(_store: RunStore) -> Callable[[], object]:
    raise AssertionError("another process stands still")


def begin(address: str, amount: str) -> None:
    """Begin runs, write a frame of each, and then more of all, until the process is killed."""
    with opened(Place(address, True, _never)) as (store, listener):
        runs = [begun(store, fresh(successor=b"go on")) for _ in range(int(amount))]
        say(" ".join(run.id for run in runs))
        sys.stdin.readline()
        for number in range(1, FRAMES):
            for run in runs:
                put(store, run, number, 1)
            for run in runs:
                listener.wait_for_frame(run, number)
            if number == FRAMES // 2:
                say("half")
        sys.stdin.readline()


def inherit(address: str) -> None:
    """Say which runs are inherited, and go on with them; leave at a line."""
    store = open_run_store(address, RunLimits(DAY), ENDINGS)
    store.follow(Heir(store))
    say("ready")
    sys.stdin.readline()
    store.leave()
    store.close()
