"""First event: one stream at a time on an idle server, from connecting to its first event."""

from __future__ import annotations

import math
import time

from benchmarks.client.load import Load, Stream
from benchmarks.client.order import OrderCheck
from benchmarks.open_streams import faults
from benchmarks.percentile import percentile
from benchmarks.scenario import Figure, Metric, Options, Sample, Scenario
from benchmarks.server_process import Running

_WARM_UP = 50


def measure(server: Running, options: Options) -> Sample:
    """Open streams one after the other over the time, and leave each when it has had its event."""
    request = server.request("open")
    delays = []
    with Load(server.port) as load:
        for _ in range(_WARM_UP + options.streams):
            stream = Stream(request, OrderCheck(1))
            load.add([stream], math.inf)
            began = time.monotonic()
            if not load.run(lambda: _came(load.streams[-1]), options.patience) or stream.ended_at:
                return Sample(faults=faults(load))
            delays.append((time.monotonic() - began) * 1e3)
            load.leave(stream)
            # The server has something to do when a client leaves, too: not in the next one's time.
            load.run_for(options.seconds / options.streams)
        ordered = sorted(delays[_WARM_UP:])
        return Sample(
            {"p50_ms": percentile(ordered, 50), "p99_ms": percentile(ordered, 99)}, faults(load)
        )


def _came(stream: Stream) -> bool:
    return bool(stream.check.events or stream.ended_at)


SCENARIO = Scenario(
    name="first_event",
    title="First event: from connecting to the first event, server idle",
    route="open",
    reference="bare_c",
    metrics=(
        Metric("p50_ms", "p50 ms", ".3f"),
        Metric("p99_ms", "p99 ms", ".3f"),
    ),
    charts=("p50_ms",),
    options=Options(streams=200, seconds=1),
    measure=measure,
    figures=(
        Figure(
            text="first event: p50 at most 2.2 x that of Starlette (goal 1.2)",
            metric="p50_ms",
            server="sseflask_worker",
            reference="starlette_uvicorn",
            at_most=2.2,
        ),
    ),
)
