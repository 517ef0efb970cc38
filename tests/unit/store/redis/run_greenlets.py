"""``python -m tests.unit.store.redis.run_greenlets <url>``: reports on a store under gevent.

Greenlets write runs, gevent's thread pool makes calls; then the server does nothing for a second
while a timer of the loop goes on.
"""

# ruff: noqa: E402
from gevent import monkey

monkey.patch_all()

from tests.switches import watch_switches

switches = watch_switches()  # before other modules make their locks

import json
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import gevent

from sseflask.store.api import StoreError
from sseflask.store.redis.address import RedisAddress
from sseflask.store.redis.run_store import RedisRunStore
from sseflask.store.run_api import Run, RunAppend, RunFrames, RunKey, RunLimits, size_of
from tests.contract.run_stores import DAY, ENDINGS, FINISHED, STOPPED, fresh

RUNS, FRAMES = 50, 40

native_ident = monkey.get_original("_thread", "get_ident")


class Listener:
    """Collects what it is given, in the event loop."""

    def __init__(self) -> None:
        self.seen: dict[RunKey, list[tuple[int, bytes]]] = {}
        self.ends: dict[RunKey, Run] = {}
        self.threads: set[int] = set()

    def frames(self, batch: Sequence[RunFrames]) -> None:
        self.threads.add(native_ident())
        for run, first, frames in batch:
            self.seen.setdefault(run, []).extend(enumerate(frames, first))

    def ended(self, run: Run, here: bool) -> None:
        self.threads.add(native_ident())
        assert run.key not in self.ends or not here
        self.ends[run.key] = run

    def inherited(self, run: Run, successor: bytes) -> None:
        raise AssertionError(f"{run} is not inherited: {successor!r}")

    def lost(self, run: RunKey, error: StoreError | None) -> None:
        raise AssertionError(f"{run} is not lost: {error}")

    def beat(self) -> None:
        self.threads.add(native_ident())


def opened(url: str) -> tuple[RedisRunStore, Listener]:
    store, listener = RedisRunStore(url, RunLimits(DAY), ENDINGS), Listener()
    store.follow(listener)
    return store, listener


def begun(store: RedisRunStore) -> Run:
    claimed = store.claim(fresh(most=1000))
    assert isinstance(claimed, tuple)
    return claimed[0]


def wait_for(condition: Any) -> None:
    with gevent.Timeout(30):
        while not condition():
            gevent.sleep(0.005)


def main(url: str) -> dict[str, Any]:
    store, listener = opened(url)
    other, watcher = opened(f"{url}&socket_timeout=6")

    def write(run: Run) -> None:
        size = 0
        for number in range(1, FRAMES + 1):
            frame = b"%d" % number
            size += size_of([frame])
            store.wait_for_room(run.key)
            store.append(RunAppend(run.key, number, [frame], [b""], size))
            gevent.sleep(0)
        store.append(RunAppend(run.key, FRAMES + 1, [], [], size, FINISHED))

    runs = [greenlet.get() for greenlet in [gevent.spawn(begun, store) for _ in range(RUNS)]]
    for run in runs:
        other.attach(run.key)
    gevent.joinall([gevent.spawn(write, run) for run in runs], raise_error=True)
    keys = {run.key for run in runs}
    wait_for(lambda: keys <= listener.ends.keys() & watcher.ends.keys())
    frames = [(number, b"%d" % number) for number in range(1, FRAMES + 1)]
    whole = all(listener.seen[key] == watcher.seen[key] == frames for key in keys)

    pool = gevent.get_hub().threadpool

    def in_pool() -> str:
        """In another native thread, whose hub is none of the store's."""
        run = begun(store)
        store.append(RunAppend(run.key, 1, [b"x"], [b""], size_of([b"x"])))
        other.attach(run.key)
        other.detach(run.key)
        other.attach(run.key)
        ended = store.end(run.key, STOPPED)
        assert ended is not None
        assert store.find(run.id, "alice") == ended
        return run.id

    stopped = [each.get(timeout=30) for each in [pool.spawn(in_pool) for _ in range(10)]]
    wait_for(lambda: set(stopped) <= listener.ends.keys() & watcher.ends.keys())

    moments: list[float] = []

    def tick() -> None:
        while True:
            moments.append(time.monotonic())
            gevent.sleep(0.01)

    connection = RedisAddress(url).connect()
    connection.send_command("CLIENT", "PAUSE", 1000)
    connection.read_response()
    ticking = gevent.spawn(tick)
    before = time.monotonic()
    run = begun(store)
    waited = time.monotonic() - before
    ticking.kill()
    moments.append(time.monotonic())
    connection.disconnect()
    store.leave()
    store.close()
    ended_at_its_end = run.key in listener.ends
    other.close()
    pauses = [after - before for before, after in pairwise(moments)]
    return {
        "switches": switches,
        "whole": whole,
        "from the pool": len(stopped),
        "waited": waited,
        "longest pause": max(pauses),
        "left": ended_at_its_end,
        "in the loop": listener.threads == watcher.threads == {native_ident()},
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
