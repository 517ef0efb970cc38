"""Each stack that has channels, really started: what is published arrives, once and in order."""

from __future__ import annotations

import json

import pytest

from benchmarks import subscribers
from benchmarks.client.http import get, post
from benchmarks.client.load import Load, Stream
from benchmarks.client.order import OrderCheck
from benchmarks.client.requester import Asker
from benchmarks.open_streams import open_all
from benchmarks.published_events import event
from benchmarks.scenario import Options
from benchmarks.scenarios import comeback, crossworker, storm
from benchmarks.server_process import Running
from benchmarks.stack import CHANNEL_ROUTES, ITEM_ROUTES, RUN_ROUTES
from benchmarks.subscribers import Subscribers
from tests.benchmarks.conftest import PATIENCE
from tests.benchmarks.stacks import HAVING

EVENTS = 20
SETTLE = 0.3
"""Seconds until a subscription is known to the other worker, where there is one."""


def test_each_route_is_tried() -> None:
    assert set(HAVING) == {*CHANNEL_ROUTES, *RUN_ROUTES, *ITEM_ROUTES}


@pytest.fixture
def settled(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give nchan's two workers time: a new subscriber's first event is lost until both know of it,
    which nothing but that event can show."""
    if server.stack.name == "nchan_workers":
        monkeypatch.setattr(subscribers, "_SETTLE", 3.0)


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("server", HAVING["publish"], indirect=True)
def test_what_is_published_reaches_every_subscriber(server: Running) -> None:
    with Subscribers(server, PATIENCE) as those:
        assert those.open(10)
        assert those.publish_events(EVENTS // 2)
        # Late ones get what is published from then on.
        assert those.open(5)
        assert those.publish(0.2, EVENTS)
        assert those.faults() == []
        first, last = those.load.streams[0], those.load.streams[-1]
        published = those.publisher.published
    assert published > EVENTS // 2
    assert (first.check.events, last.check.events) == (published, published - EVENTS // 2)


# Not of two workers of nchan: the second learns of a new channel only after its subscriber has had
# the headers, so that a first event may come too early.
@pytest.mark.parametrize(
    "server", [name for name in HAVING["publish"] if name != "nchan_workers"], indirect=True
)
def test_a_channel_is_not_another(server: Running) -> None:
    here, there = (Stream(server.request("subscribe", channel=name), numbered()) for name in "xy")
    with Load(server.port) as load, Asker(server.port) as asker:
        streams = iter((here, there))
        assert open_all(load, lambda: next(streams), 2, PATIENCE)
        load.run_for(SETTLE)
        for number, channel in ((0, "x"), (0, "y"), (1, "y"), (1, "x")):
            path = server.stack.path("publish", channel=channel)
            assert 200 <= asker.ask_and_wait(post(path, server.port, event(number))) < 300
        here.check.expect(2)
        there.check.expect(2)
        assert load.run(lambda: here.check.complete and there.check.complete, PATIENCE)
        load.run_for(0.1)
    assert here.check.faults() == there.check.faults() == []


@pytest.mark.parametrize("server", HAVING["publish_array"], indirect=True)
def test_an_array_is_published_in_its_order(server: Running) -> None:
    array = json.dumps([{"data": event(number).decode()} for number in range(2)]).encode()
    path = server.stack.path("publish_array", channel="array")
    stream = Stream(server.request("subscribe", channel="array"), numbered())
    with Load(server.port) as load, Asker(server.port) as asker:
        assert open_all(load, lambda: stream, 1, PATIENCE)
        assert asker.ask_and_wait(post(path, server.port, array, "application/json")) == 201
        stream.check.expect(2)
        assert load.run(lambda: stream.check.complete, PATIENCE)
    assert stream.check.faults() == []


@pytest.mark.parametrize("server", HAVING["publish_loop"], indirect=True)
def test_a_server_publishes_as_many_as_it_is_asked_for(server: Running) -> None:
    path = server.stack.path("publish_loop", channel="loop", count=2)
    stream = Stream(server.request("subscribe", channel="loop"), numbered())
    with Load(server.port) as load, Asker(server.port) as asker:
        assert open_all(load, lambda: stream, 1, PATIENCE)
        assert asker.ask_and_wait(post(path, server.port, b"")) == 200
        stream.check.expect(2)
        assert load.run(lambda: stream.check.complete, PATIENCE)
        load.run_for(0.1)
    assert stream.check.faults() == []


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("server", HAVING["publish_across"], indirect=True)
def test_of_two_workers_each_delivers_what_the_other_is_given(server: Running) -> None:
    sample = crossworker.measure(server, Options(streams=10, seconds=0.5, patience=PATIENCE))
    assert sample.faults == []
    assert sample.values["other_p99_ms"] > 0


@pytest.mark.parametrize("server", ["sseflask_redis", "sseflask_service"], indirect=True)
def test_clients_that_return_get_what_they_missed_and_what_follows(server: Running) -> None:
    sample = comeback.measure(server, Options(streams=5, seconds=0.5, patience=PATIENCE))
    assert sample.faults == []
    assert {metric.key for metric in comeback.SCENARIO.metrics} == set(sample.values)
    assert sample.values["publish_p99_ms"] > 0


@pytest.mark.parametrize(
    "server", sorted({*HAVING["resume"], *storm.SCENARIO.servers}), indirect=True
)
def test_all_of_a_storm_are_served(server: Running) -> None:
    sample = storm.measure(server, Options(streams=20, seconds=0, patience=PATIENCE))
    assert sample.faults == []
    assert {metric.key for metric in storm.SCENARIO.metrics} == set(sample.values)
    assert sample.values["served_seconds"] > 0


@pytest.mark.parametrize(
    "server",
    ["sseflask_redis", "sseflask_redis_machines", "sseflask_service", "sseflask_workers"],
    indirect=True,
)
def test_the_settings_of_the_service_give_it_nothing_to_complain_of(server: Running) -> None:
    # Once it has answered it has said what it says at its start.
    with Asker(server.port) as asker:
        assert asker.ask_and_wait(get("/healthz", server.port)) == 200
    # It may have been late on a busy machine.
    late = "meanwhile no stream was served"
    assert [line for line in server.complaints() if late not in line] == []


@pytest.mark.parametrize("server", HAVING["health"], indirect=True)
def test_it_says_that_it_is_alive(server: Running) -> None:
    with Asker(server.port) as asker:
        for _ in range(2):
            path = server.stack.path("health")
            assert asker.ask_and_wait(get(path, server.port)) == 200


def numbered() -> OrderCheck:
    return OrderCheck(0, lambda data: int(data.split(b" ")[0]))
