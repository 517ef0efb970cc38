"""Layers: where the CPU of a completion goes until its first chunk has come."""

from __future__ import annotations

import contextlib

from benchmarks.client.load import Stream
from benchmarks.client.order import OrderCheck
from benchmarks.layers import METRICS, measure_layers
from benchmarks.scenario import Options, Prepared, Sample, Scenario
from benchmarks.scenarios import relay
from benchmarks.server_process import Running
from benchmarks.upstream import read_chunk

_RATE = 0.02
"""Chunks a second: nothing but the first comes while it is measured."""


def measure(server: Running, options: Options) -> Sample:
    """Divide the CPU of a completion's beginning by layers."""
    request = server.request("relay")

    def number(data: bytes) -> int | None:
        chunk = read_chunk(data)
        return None if chunk is None else chunk.number

    return measure_layers(
        server, options, lambda: Stream(request, OrderCheck(1, number, ids=relay.run_ids(server)))
    )


def prepare(options: Options) -> contextlib.AbstractContextManager[Prepared]:
    """Have an upstream that sends one chunk at once."""
    return relay.upstream(options, _RATE)


SCENARIO = Scenario(
    name="layers_first_chunk",
    title="Layers: where the CPU of a completion goes until its first chunk",
    route="relay",
    servers=("sseflask_service",),
    reference="sseflask_service",
    metrics=METRICS,
    charts=(),
    # The time is what opening takes.
    options=Options(streams=300, seconds=0),
    measure=measure,
    rounds=5,
    prepare=prepare,
)
