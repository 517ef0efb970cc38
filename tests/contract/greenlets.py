"""``python -m tests.contract.greenlets <path>``: a log's thread under gevent; prints a report.

Thousands of greenlets append; then another process holds the file's write lock for a second while
a timer of the loop goes on.
"""

# ruff: noqa: E402
from gevent import monkey

monkey.patch_all()

import json
import sys
import threading
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import gevent
from gevent.event import AsyncResult

from sseflask.store.api import Append, Appended, Entry, KeyReused
from sseflask.store.sqlite.event_thread import LogThread
from sseflask.store.sqlite.events import SqliteLog
from sseflask.store.sqlite.wakeup import WakeupSocket
from tests.contract.event_processes import hold
from tests.processes import go_on, line, process

GREENLETS = 5000


def main(path: str) -> dict[str, Any]:
    transactions, idents, entries = list[int](), set[int](), list[Entry]()
    ident = monkey.get_original("_thread", "get_ident")

    class Counted(SqliteLog):
        def append(self, appends: Sequence[Append]) -> list[Appended | KeyReused]:
            transactions.append(len(appends))
            idents.add(ident())
            return super().append(appends)

    thread = LogThread(
        lambda: Counted(path, keep=10**6, seconds=86_400),
        entries.extend,
        lambda *_: None,
        lambda *_: None,
        lambda *_: None,
        lambda *_: None,
        WakeupSocket(path),
    )
    hub = gevent.get_hub()

    def put(index: int) -> Appended:
        """What the hub of the channels will do: hand over, and go on in the loop when done."""
        answer: AsyncResult[Appended] = AsyncResult()
        watcher = hub.loop.async_()
        box: list[tuple[Any, Exception | None]] = []

        def done(result: Any, error: Exception | None) -> None:
            box.append((result, error))
            watcher.send_ignoring_arg(None)

        def answered() -> None:
            watcher.close()
            result, error = box[0]
            if error is None:
                answer.set(result)
            else:
                answer.set_exception(error)

        watcher.start(answered)
        thread.append(Append("a", (b"%d" % index,)), done)
        result = answer.get()
        assert result is not None
        return result

    greenlets = [gevent.spawn(put, index) for index in range(GREENLETS)]
    gevent.joinall(greenlets, raise_error=True)
    results = [greenlet.value for greenlet in greenlets]
    in_order = results == [Appended(n, n) for n in range(1, GREENLETS + 1)]
    in_order = in_order and [entry.frame for entry in entries] == [
        b"%d" % index for index in range(GREENLETS)
    ]
    grouped = len(transactions)

    moments: list[float] = []

    def tick() -> None:
        while True:
            moments.append(time.monotonic())
            gevent.sleep(0.01)

    with process(hold, path) as holder:
        locked = line(holder) == "locked"
        ticking = gevent.spawn(tick)
        begun = time.monotonic()
        # How long it is held is what this is about.
        gevent.spawn_later(1.0, go_on, holder)
        put(GREENLETS)
        waited = time.monotonic() - begun
        ticking.kill()
        moments.append(time.monotonic())
    thread.close()
    ended = thread.join(30)
    pauses = [after - before for before, after in pairwise(moments)]
    return {
        "appended": len(results),
        "in order": in_order and locked and entries[-1].number == GREENLETS + 1,
        "transactions": grouped,
        "locked seconds": waited,
        "ticks while locked": len(moments),
        "longest pause": max(pauses),
        "native": ended and idents.isdisjoint({ident(), threading.get_ident()}),
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
