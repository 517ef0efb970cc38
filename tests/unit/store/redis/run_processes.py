"""What other processes do with a Redis store of runs."""

from __future__ import annotations

import sys
from collections.abc import Callable

from sseflask.store.run_api import RunAppend, RunStore
from tests.contract.run_stores import Place, begun, opened, put
from tests.processes import say


def never(_store: RunStore) -> Callable[[], object]:
    raise AssertionError("another process stands still")


def write(url: str, amount: str) -> None:
    """Begin runs and write one frame of each; at a line, a second; say how the first one ended."""
    with opened(Place(url, True, never)) as (store, listener):
        runs = [begun(store) for _ in range(int(amount))]
        for run in runs:
            put(store, run, 1, 1)
        for run in runs:
            listener.wait_for_frame(run, 1)
        say(" ".join(run.key for run in runs))
        sys.stdin.readline()
        for run in runs:
            store.append(RunAppend(run.key, 2, [b"late"], [b""], 100))
        for run in runs:
            ended = listener.wait_for_end(run)
        say(ended.last)
        say(len(listener.ends))
        put(store, begun(store), 1, 1)
        sys.stdin.readline()
