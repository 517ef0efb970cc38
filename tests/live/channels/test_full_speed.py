"""Clients that break off at any byte while others publish as fast as they can."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import pytest

from tests.live.kit.clients import open_stream
from tests.live.kit.publishing import Publisher, number, publish
from tests.live.kit.servers import Server
from tests.live.kit.services import service
from tests.live.kit.stores import Store, on_every_store
from tests.live.kit.subscribers import Received, Subscriber
from tests.live.kit.swarm import Swarm
from tests.live.kit.waiting import until
from tests.live.kit.workers import suspended

HISTORY = {"SSEFLASK_HISTORY_EVENTS": "100000", "SSEFLASK_HEARTBEAT": "1"}
#: What is subscribed to, and which channels that is.
SUBSCRIPTIONS = {
    "/channels/all.a.1": r"all\.a\.1",
    "/channels/all.*.2": r"all\..\.2",
    "/channels/all.b.**": r"all\.b\..",
    "/channels?c=all.a.1&c=all.b.2": r"all\.(a\.1|b\.2)",
    "/channels?c=all.**&c=all.a.*": r"all\..*",
}

pytestmark = on_every_store


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, store: Store) -> Iterator[Server]:
    """Two workers; each test has channels of its own."""
    directory = tmp_path_factory.mktemp("busy")
    with service(directory, workers=2, settings={**HISTORY, **store(directory)}) as started:
        yield started


def test_nothing_is_lost_and_nothing_comes_twice(server: Server) -> None:
    with contextlib.ExitStack() as stack:
        subscribers = [
            Subscriber(path, event_source=bool(n % 2), breaking=(0.0, 0.02, 0.1)[n % 3])
            for path in SUBSCRIPTIONS
            for n in range(6)
        ]
        swarm = stack.enter_context(Swarm(server.port, subscribers))
        swarm.wait_until_connected()
        swarm.wait_for(lambda each: bool(each.last_id), "they know where they begin")
        publishers = [
            stack.enter_context(Publisher(server.port, channel, channel, batch=batch))
            for channel, batch in (("all.a.1", 1), ("all.a.2", 20), ("all.b.1", 1), ("all.b.2", 3))
        ]
        publishers[0].wait_for(150)
        publishers[2].wait_for(150)
        for publisher in publishers:
            publisher.stop()
        order = sorted(
            (number(event_id), event_id, data, publisher.channel)
            for publisher in publishers
            for event_id, data in publisher.taken
        )
        assert len({at for at, *_ in order}) == len(order), "each number once"
        for publisher in publishers:
            ids = [event_id for event_id, _ in publisher.taken]
            assert ids == sorted(ids, key=number), "a publisher's events stay in order"
        expected = {
            path: [
                Received(event_id, "message", data)
                for _, event_id, data, channel in order
                if re.fullmatch(channels, channel)
            ]
            for path, channels in SUBSCRIPTIONS.items()
        }
        swarm.wait_for(
            lambda each: bool(each.events) and each.last_id == expected[each.path][-1].id,
            "has the last event",
            seconds=60,
        )
    for subscriber in subscribers:
        assert subscriber.events == expected[subscriber.path], subscriber.summary()
        assert not subscriber.gaps, subscriber.summary()
        assert not subscriber.problems, subscriber.summary()
        assert not subscriber.truncated, subscriber.summary()
    assert sum(each.broken_off for each in subscribers) > 50, "they did break off"


def test_a_new_subscriber_gets_nothing_old(server: Server) -> None:
    """It gets no event whose publisher had its answer before the subscription began, on
    whichever worker either is and however busy they are."""
    with (
        Publisher(server.port, "noise.1", "noise"),
        Publisher(server.port, "noise.2", "noise"),
        Publisher(server.port, "noise.3", "noise"),
    ):
        old = []
        for n in range(200):
            publish(server, "old", f"old {n}")
            with open_stream(server, "/channels/old") as stream:
                publish(server, "old", f"new {n}")
                data = stream.next().data
                if data != f"new {n}":
                    old.append(data)
        assert old == []


def test_a_worker_that_stands_still(server: Server) -> None:
    """It delays no other worker, and its subscribers get everything when it goes on."""
    with Swarm(server.port) as swarm:
        standing, going = server.workers()
        while min(len(swarm.served_by(each)) for each in (standing, going)) < 9:
            assert len(swarm.subscribers) < 1000, "all subscribers are on one worker"
            swarm.add(*(Subscriber("/channels/still") for _ in range(30)))
            swarm.wait_until_connected()
        with suspended(standing):
            with Publisher(server.port, "still", "event", batch=5) as publisher:
                publisher.wait_for(5000)
                served = swarm.served_by(going)
            last = publisher.taken[-1][0]
            assert 5 < len(served) < len(swarm.subscribers) - 5
            until(lambda: all(each.last_id == last for each in served), "the others have it all")
        swarm.wait_for(lambda each: each.last_id == last, "has the last event")
        for subscriber in swarm.subscribers:
            assert subscriber.data() == publisher.data(), subscriber.summary()
