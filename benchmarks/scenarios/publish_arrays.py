"""Publish: arrays of a hundred events over HTTP, one after the other, to one subscriber."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Sequence

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
    """Publish the next array whenever one is answered; the time ends with the last delivery.

    There are as many publishers as streams, each with a channel and a subscriber of its own.
    """
    with contextlib.ExitStack() as opened:
        deliveries = [Deliveries() for _ in range(options.streams)]
        publishers = [
            _publisher(server, opened.enter_context(Asker(server.port)), place, own)
            for place, own in enumerate(deliveries)
        ]
        load = opened.enter_context(Load(server.port, publishers))

        def failed() -> bool:
            return any(publisher.faults for publisher in publishers)

        def publish(seconds: float) -> None:
            for publisher in publishers:
                publisher.go(math.inf, ahead=1_000_000)
            load.run(failed, seconds)
            for publisher in publishers:
                publisher.finish()
            load.run(lambda: failed() or all(each.settled for each in publishers), options.patience)

        streams = [
            Stream(server.request("subscribe", channel=_channel(place)), OrderCheck(0, own.number))
            for place, own in enumerate(deliveries)
        ]
        left = iter(streams)
        if not open_all(load, lambda: next(left), len(streams), options.patience):
            return Sample(faults=faults(load))
        publish(_WARM_UP / 100)
        events, meter, began = _received(deliveries), CPUMeter(server), time.monotonic()
        publish(options.seconds)
        took = time.monotonic() - began
        events = _received(deliveries) - events
        figures = meter.per_event(max(events, 1))
        for stream, publisher in zip(streams, publishers, strict=True):
            stream.check.expect(publisher.published * _TOGETHER)
        sample = Sample(faults=faults(load, "not every event came in time"))
        for publisher in publishers:
            sample.faults += publisher.faults
    if events:
        sample.values = {"events_per_second": events / took, **figures}
    return sample


def _channel(place: int) -> str:
    return f"{CHANNEL}{place}"


def _publisher(server: Running, asker: Asker, place: int, deliveries: Deliveries) -> Publisher:
    path = server.stack.path("publish_array", channel=_channel(place))
    publisher = Publisher(
        lambda number: post(path, server.port, array(number * _TOGETHER), _KIND),
        [asker],
        lambda: deliveries.received,
    )
    publisher.copies = _TOGETHER
    return publisher


def _received(deliveries: Sequence[Deliveries]) -> int:
    return sum(each.received for each in deliveries)


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
    rounds=5,
    figures=(
        Figure(
            text="publish: at least 10,000 events/s in arrays over HTTP, all of them delivered",
            metric="events_per_second",
            server="sseflask_service",
            at_least=10_000,
        ),
    ),
    prepare=with_log,
)
