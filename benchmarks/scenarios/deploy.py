"""Deploy: SIGTERM while counters stream; how many are cut short, how long the server stays."""

from __future__ import annotations

import time

from benchmarks.client.load import Load, Stream
from benchmarks.client.order import OrderCheck
from benchmarks.scenario import Figure, Metric, Options, Sample, Scenario
from benchmarks.server_process import Running

_INTERVAL = 0.5
_OPENED_PER_SECOND = 500.0
_PLATFORM_PATIENCE = 10.0
"""Seconds after SIGTERM at which `docker stop` sends SIGKILL; Heroku and Kubernetes wait 30."""


def measure(server: Running, options: Options) -> Sample:
    """Open all streams, let them run for a moment, send SIGTERM and read until the server is gone.

    A stream is cut short when it ends without a proper last chunk, or is open still
    when a platform's patience is over. Not so where it ends properly: its client comes back with
    the last id.
    """
    request = server.request("counter", count=100_000, interval=_INTERVAL)
    with Load(server.port) as load:
        load.add(
            (Stream(request, OrderCheck(100_000)) for _ in range(options.streams)),
            _OPENED_PER_SECOND,
        )
        if not load.run_until_all_began(options.patience):
            return Sample(faults=load.faults())
        load.run_for(options.seconds)
        early = sum(1 for stream in load.streams if stream.ended_at)
        server.terminate()
        began = time.monotonic()
        load.run(lambda: server.exited, _PLATFORM_PATIENCE)
        took = time.monotonic() - began
        load.run(load.all_ended, seconds=1)
        cut = sum(1 for stream in load.streams if stream.cut or not stream.ended_at)
        faults = [
            f"stream {index}: {fault.amount} {fault.kind}"
            for index, stream in enumerate(load.streams)
            for fault in stream.check.faults()
        ]
    sample = Sample({"cut": cut}, faults[:3])
    if early:
        sample.faults.append(f"{early} streams ended before SIGTERM")
    if server.exited:
        sample.values["exit_seconds"] = took
    else:
        sample.remarks.append(f"still running {_PLATFORM_PATIENCE:g} s after SIGTERM")
    return sample


SCENARIO = Scenario(
    name="deploy",
    title="Deploy: SIGTERM with counters streaming",
    route="counter",
    servers=(
        "sseflask_service",
        "sseflask_gevent",
        "flask_gevent",
        "starlette_uvicorn",
        "sse_starlette",
    ),
    reference="flask_gevent",
    metrics=(
        Metric("cut", "streams cut short", ",.0f"),
        Metric("exit_seconds", "s to exit", ".2f"),
    ),
    charts=("cut",),
    options=Options(streams=2000, seconds=1),
    rounds=1,
    measure=measure,
    figures=(
        Figure(
            text="deploy: SIGTERM with 2,000 counter streams open, none cut short",
            metric="cut",
            server="sseflask_service",
            at_most=0,
        ),
        Figure(
            text="deploy: out within 5 s of SIGTERM",
            metric="exit_seconds",
            server="sseflask_service",
            at_most=5,
        ),
    ),
)
