"""A worker that has heartbeats all the time, and comings and goings: it must not grow."""

from __future__ import annotations

import gc
import itertools
import json
from collections.abc import Callable
from pathlib import Path

from tests.live.kit.connection import fetch
from tests.live.kit.publishing import channel_library
from tests.live.kit.servers import Server
from tests.live.kit.stores import Store, on_every_store
from tests.live.kit.subscribers import Subscriber
from tests.live.kit.swarm import Swarm
from tests.live.kit.waiting import until

HEARTBEAT = 0.02
CYCLES = 480
STAYING = 40
KIB = 1024


def held(server: Server) -> dict[str, int]:
    """What the worker holds, memory in KiB."""
    (worker,) = server.workers()
    counted: dict[str, int] = json.loads(fetch(server, "/stats").body)
    return {**counted, "memory": worker.memory_full_info().uss // KIB}


def wait_for_all(
    subscribers: list[Subscriber], condition: Callable[[Subscriber], bool], what: str
) -> None:
    until(lambda: all(condition(each) for each in subscribers), f"each {what}", pause=0.005)


@on_every_store
def test_heartbeats_and_churn_leave_nothing_behind(tmp_path: Path, store: Store) -> None:
    """Clients that stay get heartbeats only; others come and go, some with events."""
    settings = {"PROBE_HEARTBEAT": str(HEARTBEAT), **store(tmp_path)}
    with (
        channel_library(tmp_path, settings=settings) as server,
        Swarm(server.port, coming_back=False) as swarm,
    ):
        staying = [Subscriber("/subscribe?c=silent") for _ in range(STAYING)]
        swarm.add(*staying)
        until(lambda: all(each.connected for each in staying), "all have begun")
        assert held(server)["descriptors"] > STAYING
        passing = 0

        def churn(cycles: int) -> None:
            """Come and go until the clients that stay have had this many heartbeats in all."""
            nonlocal passing
            for turn in itertools.count():
                if min(each.comments for each in staying) >= cycles:
                    return
                visitors = [Subscriber(f"/subscribe?c=busy&c=visit.{n}") for n in range(4)]
                swarm.add(*visitors)
                wait_for_all(visitors, lambda each: bool(each.connected), "has begun")
                sent = fetch(server, "/publish/busy", method="POST", body=b"%d" % turn)
                assert sent.status == 201
                wait_for_all(visitors, lambda each: bool(each.events), "has the event")
                swarm.leave(*visitors)
                wait_for_all(visitors, lambda each: each.socket is None, "has left")
                swarm.subscribers = staying.copy()
                passing += len(visitors)

        churn(CYCLES // 4)
        gc.collect()
        before = held(server)
        churn(CYCLES)
        until(lambda: held(server)["descriptors"] <= before["descriptors"] + 2, "all have left")
        after = held(server)
        assert passing > 20, "there was some coming and going"
        assert after["threads"] <= before["threads"]
        assert after["greenlets"] <= before["greenlets"] + 4
        # The store itself keeps nothing in memory; SQLite's cache and Python's arenas may settle.
        assert after["memory"] <= before["memory"] + 2 * KIB, (before, after)
        for subscriber in staying:
            assert (subscriber.connected, subscriber.truncated) == (1, 0), subscriber.summary()
            assert not subscriber.problems, subscriber.summary()


@on_every_store
def test_many_idle_subscribers_cost_no_thread_and_no_greenlet(tmp_path: Path, store: Store) -> None:
    """Detached: what stays of a subscriber that only waits is a socket and a small record."""
    with (
        channel_library(tmp_path, settings={"PROBE_HEARTBEAT": "5", **store(tmp_path)}) as server,
        Swarm(server.port, coming_back=False) as swarm,
    ):
        before = held(server)
        swarm.add(*(Subscriber("/subscribe?c=silent") for _ in range(500)))
        swarm.wait_until_connected()
        until(
            lambda: held(server)["greenlets"] <= before["greenlets"] + 50,
            "the greenlets have ended",
        )
        during = held(server)
        assert during["threads"] <= before["threads"] + 2
        assert during["descriptors"] >= before["descriptors"] + 500
        sent = fetch(server, "/publish/silent", method="POST", body=b"now")
        assert sent.status == 201
        swarm.wait_for(lambda each: each.data() == ["now"], "has the event")
        swarm.leave(*swarm.subscribers)
        until(lambda: held(server)["descriptors"] <= before["descriptors"] + 11, "all have left")
