"""Idle: what a silent stream costs: memory, and CPU while nobody does anything.

The stacks that send heartbeats do so every 15 s; `--seconds 15` has one of each stream in it.
"""

from __future__ import annotations

import time

from benchmarks.client.load import Load
from benchmarks.memory import memory
from benchmarks.open_streams import ONE_EVENT, Kind, faults, open_all
from benchmarks.scenario import Figure, Metric, Options, Sample, Scenario
from benchmarks.server_process import Running

_WARM_UP = 100
_SETTLE = 1.5
"""Seconds in which what a server does once for a new stream is done."""


def measure(server: Running, options: Options, kind: Kind = ONE_EVENT) -> Sample:
    """Compare the memory before and after all but the first streams; then let all be silent."""
    make = kind.make(server)
    with Load(server.port) as load:
        if not open_all(load, make, _WARM_UP, options.patience):
            return Sample(faults=faults(load))
        load.run_for(_SETTLE)
        before = memory(server)
        if not open_all(load, make, options.streams, options.patience):
            return Sample(faults=faults(load))
        load.run_for(_SETTLE)
        grown = memory(server) - before
        cpu, began = server.cpu(), time.monotonic()
        load.run_for(options.seconds)
        cpu, took = server.cpu() - cpu, time.monotonic() - began
        thousands = (_WARM_UP + options.streams) / 1000
        return Sample(
            {
                "kib_per_stream": grown / options.streams,
                "cpu_ms_per_second": cpu * 1e3 / took / thousands,
            },
            faults(load),
        )


SCENARIO = Scenario(
    name="idle",
    title="Idle: streams without events",
    route="open",
    servers=(
        "bare_c",
        "nchan",
        "sseflask_worker",
        "flask_gevent",
        "flask_gthread",
        "starlette_uvicorn",
        "fastapi_sse",
        "sse_starlette",
    ),
    reference="starlette_uvicorn",
    metrics=(
        Metric("kib_per_stream", "KiB/stream"),
        Metric("cpu_ms_per_second", "CPU ms/s, 1,000 streams, between heartbeats", ".2f"),
    ),
    charts=("kib_per_stream",),
    options=Options(streams=1000, seconds=2),
    rounds=3,
    measure=measure,
    figures=(
        Figure(
            text="idle: at most 18 KiB of memory for a generator's stream, of 1,000",
            metric="kib_per_stream",
            server="sseflask_worker",
            at_most=18,
        ),
    ),
)
