"""Connect: streams opened as fast as the server takes them, each with one event, then silent."""

from __future__ import annotations

import time

from benchmarks.client.load import Load
from benchmarks.open_streams import ONE_EVENT, Kind, faults, open_all
from benchmarks.scenario import Figure, Metric, Options, Sample, Scenario, client_limit
from benchmarks.server_process import Running

_WARM_UP = 300


def measure(server: Running, options: Options, kind: Kind = ONE_EVENT) -> Sample:
    """Open some streams, then all the others, and keep them: nothing but opening is measured."""
    make = kind.make(server)
    with Load(server.port) as load:
        if not open_all(load, make, min(_WARM_UP, options.streams), options.patience):
            return Sample(faults=faults(load))
        cpu, began = server.cpu(), time.monotonic()
        if not open_all(load, make, options.streams, options.patience):
            return Sample(faults=faults(load))
        cpu, took = server.cpu() - cpu, time.monotonic() - began
        found = faults(load)
    return Sample(
        {
            "cpu_us_per_connect": cpu / options.streams * 1e6,
            "connects_per_second": options.streams / took,
        },
        found,
        client_limit(cpu, took),
    )


SCENARIO = Scenario(
    name="connect",
    title="Connect: new streams, each kept open",
    route="open",
    reference="starlette_uvicorn",
    metrics=(
        Metric("cpu_us_per_connect", "CPU µs/connect", ",.0f"),
        Metric("connects_per_second", "connects/s", ".2f", wall=True, more_is_better=True),
    ),
    charts=("cpu_us_per_connect",),
    # The time is what opening takes.
    options=Options(streams=1000, seconds=0),
    measure=measure,
    figures=(
        Figure(
            text="connect: a generator's stream at most 1 x the CPU of Starlette (goal 0.8)",
            metric="cpu_us_per_connect",
            server="sseflask_worker",
            reference="starlette_uvicorn",
            at_most=1,
        ),
    ),
)
