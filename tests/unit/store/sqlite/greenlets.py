"""``python -m tests.unit.store.sqlite.greenlets <path>``: reports on a store under gevent.

Thousands of greenlets append; then another process holds the file's write lock for a second, and
until a timer of the loop has gone on. Then another store of the same file follows.
"""

# ruff: noqa: E402
from gevent import monkey

monkey.patch_all()

from tests.switches import watch_switches

switches = watch_switches()  # before other modules make their locks

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import gevent

from sseflask.store.api import Append, Appended, EventLimits, KeyReused
from sseflask.store.sqlite import thread
from sseflask.store.sqlite.event_database import EventDatabase
from sseflask.store.sqlite.event_store import SqliteEventStore
from sseflask.store.tail import Page
from tests.live.kit.waiting import until
from tests.processes import go_on, line, process
from tests.unit.store.appending_greenlets import Listener, native_ident, put, put_all
from tests.unit.store.sqlite.event_processes import hold

GREENLETS = 5000
#: How often the timer fires while the file is locked. If the loop waited for the lock, it would
#: never: the lock is held until then.
TICKS = 30


class Late(Listener):
    def started(self, epoch: str, newest: int) -> None:
        pass


def descriptors() -> int:
    """How many sockets and epoll objects are open. SQLite keeps files for its next connection."""
    found = 0
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # that of the directory itself
            found += each.readlink().name.startswith(("socket:", "anon_inode:[eventpoll]"))
    return found


def follow_beside(path: str, store: SqliteEventStore, listener: Listener) -> dict[str, Any]:
    """Have a second store of the same file follow, which looks into the file only when told to."""
    thread.LOOK_SECONDS = 60.0
    before, read = descriptors(), list[int]()

    class Watched(EventDatabase):
        def since(self, number: int, limit: int) -> Page:
            read.append(number)
            return super().since(number, limit)

    late = Late()
    other = SqliteEventStore(path, EventLimits(10**6, 86_400), Watched)
    other.follow(late)
    store.position()
    other.position()
    for index in range(100):
        put(store, listener, index)
        until(lambda: len(late.entries) == index + 1, "the other one has it", pause=0.001)  # noqa: B023
    other.close()
    other.join(30)
    until(lambda: descriptors() == before, "what it had open is closed")
    return {
        "given to another": [entry.number for entry in late.entries],
        "read by another": read,
        "left open": descriptors() - before,
    }


def main(path: str) -> dict[str, Any]:
    transactions, idents = list[int](), set[int]()

    class Counted(EventDatabase):
        def append(self, appends: Sequence[Append]) -> list[Appended | KeyReused]:
            transactions.append(len(appends))
            idents.add(native_ident())
            return super().append(appends)

    listener = Listener()
    store = SqliteEventStore(path, EventLimits(10**6, 86_400), Counted)
    store.follow(listener)

    in_order = put_all(store, listener, GREENLETS)
    grouped = len(transactions)

    moments: list[float] = []

    def tick(holder: subprocess.Popen[str], least: float) -> None:
        locked = True
        while True:
            moments.append(time.monotonic())
            if locked and len(moments) > TICKS and moments[-1] >= least:
                go_on(holder)
                locked = False
            gevent.sleep(0.01)

    with process(hold, path) as holder:
        locked = line(holder) == "locked"
        begun = time.monotonic()
        # How long it is held is what this is about.
        ticking = gevent.spawn(tick, holder, begun + 1.0)
        put(store, listener, GREENLETS)
        waited = time.monotonic() - begun
        ticking.kill()
        moments.append(time.monotonic())
    beside = follow_beside(path, store, listener)
    store.close()
    ended = store.join(30)
    pauses = [after - before for before, after in pairwise(moments)]
    return {
        "switches": switches,
        "appended": len(listener.entries) - len(beside["given to another"]),
        "in order": in_order and locked and not listener.closes,
        "transactions": grouped,
        "locked seconds": waited,
        "ticks while locked": len(moments),
        "longest pause": max(pauses),
        "native": ended and native_ident() not in idents,
        "in the loop": listener.in_the_loop,
        **beside,
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
