"""Layers: where the CPU of a new generator stream goes."""

from __future__ import annotations

from benchmarks.layers import METRICS, measure_layers
from benchmarks.open_streams import ONE_EVENT
from benchmarks.scenario import Options, Sample, Scenario
from benchmarks.server_process import Running


def measure(server: Running, options: Options) -> Sample:
    """Divide the CPU of opening a stream by layers."""
    return measure_layers(server, options, ONE_EVENT.make(server))


SCENARIO = Scenario(
    name="layers_generator",
    title="Layers: where the CPU of a new generator stream goes",
    route="open",
    servers=("sseflask_worker", "flask_gevent"),
    reference="sseflask_worker",
    metrics=METRICS,
    charts=(),
    # The time is what opening takes.
    options=Options(streams=3000, seconds=0),
    measure=measure,
    rounds=5,
)
