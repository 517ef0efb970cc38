"""What other processes do that use a database of runs."""

from __future__ import annotations

import contextlib
import resource
import sys

from sseflask.store.api import KeyReused, StoreError
from sseflask.store.run_api import RunLimits
from sseflask.store.sqlite.run_database import RunDatabase
from tests.processes import say
from tests.unit.store.sqlite.run_databases import (
    DAY,
    FINISHED,
    INTERRUPTED,
    append_of,
    begun,
    everything,
    fresh,
    put,
)


def opened(path: str) -> RunDatabase:
    store = RunDatabase(path, RunLimits(DAY), INTERRUPTED)
    store.open()
    return store


def claim(path: str, keys: str, digest: str) -> None:
    """Claim runs with keys that others claim as well; say what became of each."""
    say("ready")
    sys.stdin.readline()
    store = opened(path)
    for number in range(int(keys)):
        claimed = store.claim(fresh(f"key {number}", digest.encode()))
        if isinstance(claimed, tuple):
            run, repeated = claimed
            say(f"{'found' if repeated else 'fresh'} {run.key}")
        else:
            say("reused" if isinstance(claimed, KeyReused) else "too many")
    sys.stdin.readline()
    store.close()


def write(path: str, amount: str) -> None:
    """Write a run, frame by frame, at full speed; say how far it was when it was refused."""
    store = opened(path)
    run = begun(store)
    say(run.key)
    sys.stdin.readline()
    stored = 0
    while stored < int(amount) and put(store, run, stored + 1, 1):
        stored += 1
    say(stored)
    store.close()


def fill(path: str) -> None:
    """Meet a limit to the size of files, as if the disk were full, and get over it."""
    store = opened(path)
    run = begun(store)
    most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, most))
    stored = 0
    try:
        while stored < 10_000:
            store.append([append_of(run.key, stored + 1, [b"x" * 4000] * 3, before=0)])
            stored += 3
    except StoreError as error:
        say(error)
    say(stored)
    large = append_of(run.key, stored + 1, [b"z" * 4000] * 100, FINISHED, before=0)
    for _ in range(3):
        with contextlib.suppress(StoreError):
            store.append([large])
            say("that should not have been possible")
    say([number for number, _ in everything(store, run)] == list(range(1, stored + 1)))
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    _, (ended,) = store.append([large])
    say([number for number, _ in everything(store, run)] == list(range(1, stored + 101)))
    say(ended.ended == stored + 101)
    store.close()
