"""Layers: where the CPU of a new subscriber goes."""

from __future__ import annotations

from benchmarks.layers import METRICS, measure_layers
from benchmarks.open_streams import SUBSCRIPTION
from benchmarks.scenario import Options, Sample, Scenario
from benchmarks.server_process import Running
from benchmarks.subscribers import with_log


def measure(server: Running, options: Options) -> Sample:
    """Divide the CPU of opening a stream by layers."""
    return measure_layers(server, options, SUBSCRIPTION.make(server))


SCENARIO = Scenario(
    name="layers_subscriber",
    title="Layers: where the CPU of a new subscriber goes",
    route="subscribe",
    servers=("sseflask_worker", "sseflask_service"),
    reference="sseflask_worker",
    metrics=METRICS,
    charts=(),
    # The time is what opening takes.
    options=Options(streams=3000, seconds=0),
    measure=measure,
    rounds=5,
    prepare=with_log,
)
