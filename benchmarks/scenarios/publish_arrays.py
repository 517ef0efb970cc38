"""Publish: arrays of a hundred events over HTTP, one after the other, to one subscriber."""

from __future__ import annotations

import json
import math
import time

from benchmarks.client.http import post
from benchmarks.client.load import Load, Stream
from benchmarks.client.order import OrderCheck
from benchmarks.client.requester import Asker
from benchmarks.cpu import CPUMeter
from benchmarks.open_streams import faults, open_all
from benchmarks.published_events import Deliveries, Publisher, event
from benchmarks.scenario import Figure, Metric, Options, Sample, Scenario
from benchmarks.server_process import Running
from benchmarks.subscribers import CHANNEL, with_log

_TOGETHER = 100
_WARM_UP = 10
_KIND = "application/json"


def array(first: int) -> bytes:
    """Give the body that publishes a hundred events."""
    numbers = range(first, first + _TOGETHER)
    return json.dumps([{"data": event(number).decode()} for number in numbers]).encode()


def measure(server: Running, options: Options) -> Sample:
    """Publish the next array whenever one is answered; the time ends with the last delivery."""
    path = server.stack.path("publish_array", channel=CHANNEL)
    request = server.request("subscribe", channel=CHANNEL)
    deliveries = Deliveries()
    with Asker(server.port) as asker:
        publisher = Publisher(
            lambda number: post(path, server.port, array(number * _TOGETHER), _KIND),
            [asker],
            lambda: deliveries.received,
        )
        publisher.copies = _TOGETHER
        with Load(server.port, (publisher,)) as load:

            def publish(until_or_seconds: float) -> None:
                publisher.go(math.inf, ahead=1_000_000)
                load.run(lambda: bool(publisher.faults), until_or_seconds)
                publisher.finish()
                load.run(lambda: publisher.settled or bool(publisher.faults), options.patience)

            stream = Stream(request, OrderCheck(0, deliveries.number))
            if not open_all(load, lambda: stream, 1, options.patience):
                return Sample(faults=faults(load))
            publish(_WARM_UP / 100)
            events, meter, began = deliveries.received, CPUMeter(server), time.monotonic()
            publish(options.seconds)
            took = time.monotonic() - began
            events = deliveries.received - events
            figures = meter.per_event(max(events, 1))
            stream.check.expect(publisher.published * _TOGETHER)
            sample = Sample(faults=publisher.faults + faults(load, "not every event came in time"))
    if events:
        sample.values = {"events_per_second": events / took, **figures}
    return sample


SCENARIO = Scenario(
    name="publish_arrays",
    title="Publish: arrays of 100 events over HTTP, one subscriber that gets them all",
    route="publish_array",
    reference="sseflask_service",
    metrics=(
        Metric("cpu_us_per_event", "CPU µs/event"),
        Metric("redis_us_per_event", "Redis µs/event"),
        Metric("events_per_second", "events/s", ",.0f", more_is_better=True),
    ),
    charts=(),
    options=Options(streams=1, seconds=2),
    measure=measure,
    rounds=3,
    figures=(
        Figure(
            text="publish: at least 10,000 events/s in arrays over HTTP, all of them delivered",
            metric="events_per_second",
            server="sseflask_service",
            at_least=10_000,
        ),
        Figure(
            text="publish on Redis: at least 40,000 events/s in arrays over HTTP, all of them "
            "delivered",
            metric="events_per_second",
            server="sseflask_redis",
            at_least=40_000,
        ),
    ),
    prepare=with_log,
)
