"""Publish: a view calls `sse.publish` again and again; one subscriber gets all of it."""

from __future__ import annotations

import time

from benchmarks.client.http import post
from benchmarks.client.load import Load, Stream
from benchmarks.client.order import OrderCheck
from benchmarks.client.requester import Asker, NoAnswer
from benchmarks.cpu import CPUMeter
from benchmarks.open_streams import faults, open_all
from benchmarks.published_events import Deliveries
from benchmarks.scenario import Figure, Metric, Options, Sample, Scenario
from benchmarks.server_process import Running
from benchmarks.subscribers import with_log

_WARM_UP = 1000


def measure(server: Running, options: Options) -> Sample:
    """Warm up, find out how many events fill the time, then time them up to the last delivery."""
    sample = Sample()
    took, _ = _publish(server, options, "warm", _WARM_UP, sample)
    if sample.faults:
        return sample
    count = max(int(_WARM_UP / took * options.seconds), _WARM_UP)
    took, figures = _publish(server, options, "measured", count, sample)
    sample.values = {"events_per_second": count / took, **figures}
    return sample


def _publish(
    server: Running, options: Options, channel: str, count: int, sample: Sample
) -> tuple[float, dict[str, float]]:
    """Have so many events published; give the seconds that it took, and the CPU for an event."""
    path = server.stack.path("publish_loop", channel=channel, count=count)
    deliveries = Deliveries()
    stream = Stream(server.request("subscribe", channel=channel), OrderCheck(0, deliveries.number))
    answer: int | None = None
    with Load(server.port) as load, Asker(server.port) as asker:
        if not open_all(load, lambda: stream, 1, options.patience):
            sample.faults += faults(load)
            return 0, {}
        stream.check.expect(count)
        meter, began = CPUMeter(server), time.monotonic()
        asker.ask(post(path, server.port, b""))

        def done() -> bool:
            nonlocal answer
            if answer is None:
                answer = asker.answer()
            return answer is not None and stream.check.complete

        try:
            load.run(done, options.seconds + options.patience)
        except NoAnswer as error:
            sample.faults.append(f"not published: {error}")
        took, figures = time.monotonic() - began, meter.per_event(count)
        if answer not in (None, 200):
            sample.faults.append(f"refused: status {answer}")
        sample.faults += faults(load, "not every event came in time")
    return took, figures


SCENARIO = Scenario(
    name="publish",
    title="Publish: sse.publish in a loop, one subscriber that gets them all",
    route="publish_loop",
    reference="sseflask_worker",
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
            text="publish: at least 5,000 events/s through sse.publish, all of them delivered",
            metric="events_per_second",
            server="sseflask_worker",
            at_least=5_000,
        ),
        Figure(
            text="publish on Redis: at least 3,000 events/s one by one from 50 greenlets, all of "
            "them delivered",
            metric="events_per_second",
            server="sseflask_redis_worker",
            at_least=3_000,
        ),
    ),
    prepare=with_log,
)
