"""Followers: what an event costs a machine that has no subscriber for it, and the Redis server.

Every worker reads all events from the tail, and looks for its own subscribers only then.
"""

from __future__ import annotations

import contextlib
import time

from benchmarks.client.http import post
from benchmarks.client.load import Load
from benchmarks.client.requester import Asker, NoAnswer
from benchmarks.cpu import CPUMeter
from benchmarks.published_events import event
from benchmarks.scenario import Metric, Options, Sample, Scenario
from benchmarks.scenarios.crossworker import one_for_each_worker
from benchmarks.server_process import Running, cpu_of
from benchmarks.subscribers import with_log
from benchmarks.workers import holders

_CHANNEL = "nobody"
_WARM_UP = 100
_SETTLE = 0.3


def measure(server: Running, options: Options) -> Sample:
    """Publish one event after the other on one machine; count the CPU of the other one as well."""
    if server.redis is None:
        return Sample(faults=["has no Redis server"])
    with contextlib.ExitStack() as opened:
        if "publish_across" in server.stack.routes:
            askers = opened.enter_context(one_for_each_worker(server))
            (publishing, asker), *others = askers.items()
        else:
            asker, others = opened.enter_context(Asker(server.port)), []
        try:
            _publish(server, asker, _WARM_UP, float("inf"))
            following = [worker for worker, _ in others]
            before = sum(map(cpu_of, following))
            meter, began = CPUMeter(server), time.monotonic()
            published = _publish(server, asker, None, began + options.seconds)
            _settle(server)
        except NoAnswer as error:
            return Sample(faults=[f"not published: {error}"])
        sample = Sample(meter.per_event(published))
        if following:
            spent = sum(map(cpu_of, following)) - before
            sample.values["follower_us_per_event"] = spent / published * 1e6
            if holders(server).get(asker.local_port) != publishing:
                sample.faults.append("the publisher's connection did not last")
    return sample


def _publish(server: Running, asker: Asker, amount: int | None, until: float) -> int:
    path = server.stack.path("publish", channel=_CHANNEL)
    number = 0
    while number != amount and time.monotonic() < until:
        status = asker.ask_and_wait(post(path, server.port, event(number)))
        if not 200 <= status < 300:
            raise NoAnswer(f"status {status}")
        number += 1
    return number


def _settle(server: Running) -> None:
    """Let what was published last be read by all."""
    with Load(server.port) as load:
        load.run_for(_SETTLE)


SCENARIO = Scenario(
    name="followers",
    title="Followers: events without a subscriber, one after the other, on one machine and on two",
    route="publish",
    servers=("sseflask_redis", "sseflask_redis_machines"),
    reference="sseflask_redis",
    metrics=(
        Metric("redis_us_per_event", "Redis µs/event"),
        Metric("follower_us_per_event", "other machine: CPU µs/event"),
        Metric("cpu_us_per_event", "all machines: CPU µs/event"),
    ),
    charts=(),
    options=Options(streams=1, seconds=2),
    measure=measure,
    rounds=3,
    prepare=with_log,
)
