"""What other processes do that use a log."""

from __future__ import annotations

import contextlib
import fcntl
import resource
import sqlite3
import sys

from sseflask.store.api import Append, Appended, EventLimits, StoreError
from sseflask.store.sqlite.event_database import EventDatabase
from tests.processes import say


def opened(path: str) -> EventDatabase:
    store = EventDatabase(path, EventLimits(1_000_000, 86_400))
    store.open()
    return store


def append(path: str, groups: str, tag: str) -> None:
    """Append groups of 1 to 5 events; say the last number of each that was stored."""
    say("ready")
    sys.stdin.readline()
    store = opened(path)
    say(store.epoch)
    for index in range(int(groups)):
        amount = index % 5 + 1
        frames = tuple(b"%s %d %d/%d" % (tag.encode(), index, n, amount) for n in range(amount))
        (result,) = store.append([Append(tag, frames)])
        assert isinstance(result, Appended)
        say(result.last)
    store.close()


def hold(path: str) -> None:
    """Hold the write lock until a line comes."""
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("BEGIN IMMEDIATE")
    say("locked")
    sys.stdin.readline()
    database.execute("ROLLBACK")
    database.close()


def fill(path: str) -> None:
    """Meet a limit to the size of files, as if the disk were full, and get over it."""
    store = opened(path)
    most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, most))
    stored = 0
    try:
        while stored < 10_000:
            store.append([Append("a", (b"x" * 4000,) * 3), Append("b", (b"y" * 4000,))])
            stored += 4
    except StoreError as error:
        say(error)
    say(stored)
    for _ in range(3):
        with contextlib.suppress(StoreError):
            store.append([Append("c", (b"z" * 100_000,))])
            say("that should not have been possible")
    say([entry.number for entry in store.since(0, 10_000)] == list(range(1, stored + 1)))
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    store.append([Append("c", (b"z",) * 2)])
    say([entry.number for entry in store.since(0, 10_000)] == list(range(1, stored + 3)))
    store.close()


def try_index(path: str) -> None:
    """Say whether the lock is free that SQLite holds on the index of an open database."""
    # The byte is that of the "dead man's switch" (SQLite's os_unix.c).
    with open(f"{path}-shm", "rb+") as index:  # noqa: PTH123
        try:
            fcntl.lockf(index, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 128)
        except OSError:
            say("held")
        else:
            say("free")
