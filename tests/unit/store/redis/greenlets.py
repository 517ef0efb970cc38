"""``python -m tests.unit.store.redis.greenlets <program>``: reports on a store under gevent.

Thousands of greenlets append, and threads of gevent's pool; then the server answers nothing.
"""

# ruff: noqa: E402
from gevent import monkey

monkey.patch_all()

from tests.switches import watch_switches

switches = watch_switches()  # before other modules make their locks

import json
import os
import subprocess
import sys
import time
from itertools import pairwise
from typing import Any

import gevent

from sseflask.loop.callbacks import EventLoop
from sseflask.store.api import Append, Appended, EventLimits, EventStore, StoreError
from sseflask.store.names import Pattern
from sseflask.store.open import open_event_store
from sseflask.store.redis import address
from tests import redis_server
from tests.contract.event_stores import query
from tests.unit.store.appending_greenlets import Listener, put_all

GREENLETS, THREADS = 3000, 8


def main(program: str) -> dict[str, Any]:
    EventLoop.current()
    address.COMMAND_SECONDS = 2.0  # an answer is given up earlier than in service
    listener = Listener()
    with redis_server.running(program) as server:
        store = open_event_store(server.place(), EventLimits(10**6, 86_400))
        store.follow(listener)
        scripts_before = evaluated(server)

        in_order = put_all(store, listener, GREENLETS)
        scripts = evaluated(server) - scripts_before
        pool = gevent.get_hub().threadpool
        threads = [pool.spawn(use, store, index) for index in range(THREADS)]
        counts = [thread.get(timeout=30) for thread in threads]
        paused = stand_still(store)
        report = frozen(store, server)
    return {
        "switches": switches,
        "in order": in_order,
        "scripts": scripts,
        "counted by threads": counts,
        "refused after standing still": paused,
        "given": len(listener.entries),
        "closes": len(listener.closes),
        "in the loop": listener.in_the_loop,
        **report,
    }


def use(store: EventStore, index: int) -> int:
    """What another native thread may do."""
    result = store.append(Append(f"t.{index}", (b"t",)))
    assert isinstance(result, Appended)
    (entry,) = store.history(query(f"t.{index}")).entries
    assert entry.number == result.first <= store.position().number
    store.close_subscriptions([Pattern.parse(f"t.{index}")])
    return store.count_subscriptions(Pattern.parse("t.*"))


def evaluated(server: redis_server.RedisServerProcess) -> int:
    with server.client() as client:
        stats = client.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("eval", "evalsha"))


def stand_still(store: EventStore) -> int:
    """This process is stopped for longer than a command may take; how many calls fail then."""
    pid = os.getpid()
    helper = subprocess.Popen(["sh", "-c", f"kill -STOP {pid}; sleep 2.5; kill -CONT {pid}"])
    refused, begun = 0, time.monotonic()
    while helper.poll() is None or time.monotonic() < begun + 3.0:
        try:
            store.position()
        except StoreError:
            refused += 1
        gevent.sleep(0.01)
    return refused


def frozen(store: EventStore, server: redis_server.RedisServerProcess) -> dict[str, Any]:
    """The server answers nothing until the store says so, then it does."""
    moments: list[float] = []

    def tick() -> None:
        while True:
            moments.append(time.monotonic())
            gevent.sleep(0.01)

    ticking = gevent.spawn(tick)
    server.freeze()
    begun = time.monotonic()
    refused = 0
    for _ in range(3):
        try:
            store.append(Append("f", (b"f",), "key"))
        except StoreError:
            refused += 1
    unavailable, given_up = store.health(), time.monotonic() - begun
    server.thaw()
    begun = time.monotonic()
    while True:
        try:
            store.append(Append("f", (b"f",), "key"))
        except StoreError:
            gevent.sleep(0.01)
        else:
            break
    back = time.monotonic() - begun
    ticking.kill()
    store.close()
    return {
        "refused": refused,
        "health": unavailable,
        "given up after": given_up,
        "back after": back,
        "longest pause": max(after - before for before, after in pairwise(moments)),
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
