"""Flood: each generator yields ready-made frames as fast as the server takes them."""

from __future__ import annotations

import math
import time

from benchmarks.client.load import Load, Stream
from benchmarks.client.order import FloodCheck
from benchmarks.scenario import Figure, Metric, Options, Sample, Scenario, client_limit
from benchmarks.server_process import Running

_WARM_UP_COUNT = 20_000


def measure(server: Running, options: Options) -> Sample:
    """Warm up, find out how many events fill the time, then count them all against time and CPU."""
    seconds = 0.0
    warm_up = max(_WARM_UP_COUNT // options.streams, 1)
    for _ in range(2):
        load, seconds, _ = _flood(server, options, warm_up)
        if faults := load.faults():
            return Sample(faults=faults)
    count = max(int(warm_up / seconds * options.seconds), warm_up)
    load, seconds, cpu = _flood(server, options, count)
    if faults := load.faults():
        return Sample(faults=faults)
    events = load.events()
    return Sample(
        {"events_per_second": events / seconds, "cpu_us_per_event": cpu / events * 1e6},
        remarks=client_limit(cpu, seconds),
    )


def _flood(server: Running, options: Options, count: int) -> tuple[Load, float, float]:
    with Load(server.port) as load:
        request = server.request("flood", count=count)
        load.add((Stream(request, FloodCheck(count)) for _ in range(options.streams)), math.inf)
        cpu = server.cpu()
        began = time.monotonic()
        load.run_to_end(options.patience)
        return load, time.monotonic() - began, server.cpu() - cpu


SCENARIO = Scenario(
    name="flood",
    title="Flood: one generator of ready-made frames, no sleep",
    route="flood",
    reference="starlette_uvicorn",
    metrics=(
        Metric("events_per_second", "events/s", ".2f", wall=True, more_is_better=True),
        Metric("cpu_us_per_event", "CPU µs/event", ".3f"),
    ),
    charts=("events_per_second",),
    options=Options(streams=1, seconds=1),
    measure=measure,
    figures=(
        Figure(
            text="flood: at least 30 x the events/s of Starlette's StreamingResponse on uvicorn",
            metric="events_per_second",
            server="sseflask_worker",
            reference="starlette_uvicorn",
            at_least=30,
        ),
        Figure(
            text="flood of `Event` objects: at least 3 x the events/s of Starlette's ready frames",
            metric="events_per_second",
            server="sseflask_events",
            reference="starlette_uvicorn",
            at_least=3,
        ),
    ),
)
