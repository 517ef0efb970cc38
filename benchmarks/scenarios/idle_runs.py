"""Idle: what a durable run with one viewer costs in memory, beside a stream that is not stored."""

from __future__ import annotations

from benchmarks.client.load import Load
from benchmarks.memory import memory
from benchmarks.open_streams import ONE_EVENT, Kind, faults, open_all
from benchmarks.scenario import Metric, Options, Sample, Scenario
from benchmarks.server_process import Running
from benchmarks.subscribers import with_log

_WARM_UP = 100
_SETTLE = 1.5
_RUN = Kind("stored_open", 1)


def measure(server: Running, options: Options) -> Sample:
    """Open streams, then as many runs, each with one item so far; all stay open."""
    sample = Sample()
    with Load(server.port) as load:
        if not all(open_all(load, kind.make(server), _WARM_UP, options.patience) for kind in _BOTH):
            return Sample(faults=faults(load))
        for name, kind in (("plain", ONE_EVENT), ("run", _RUN)):
            load.run_for(_SETTLE)
            before = memory(server)
            if not open_all(load, kind.make(server), options.streams, options.patience):
                return Sample(faults=faults(load))
            load.run_for(_SETTLE)
            sample.values[f"kib_per_{name}"] = (memory(server) - before) / options.streams
        sample.faults += faults(load)
    return sample


_BOTH = (ONE_EVENT, _RUN)

SCENARIO = Scenario(
    name="idle_runs",
    title="Idle: durable runs with one viewer each, and streams that are not stored",
    route="stored_open",
    servers=("sseflask_worker", "sseflask_redis_worker"),
    reference="sseflask_worker",
    metrics=(
        Metric("kib_per_run", "KiB/run"),
        Metric("kib_per_plain", "KiB/stream"),
    ),
    charts=(),
    options=Options(streams=1000, seconds=2),
    rounds=1,
    measure=measure,
    prepare=with_log,
)
