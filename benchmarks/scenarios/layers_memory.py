"""Layers: what the memory of an idle generator stream is taken for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from benchmarks.client.load import Load
from benchmarks.memory import memory
from benchmarks.memory_layers import NotTraced, Trace, traced_environment
from benchmarks.open_streams import ONE_EVENT, faults, open_all
from benchmarks.scenario import Metric, Options, Prepared, Sample, Scenario
from benchmarks.server_process import Running

_WARM_UP = 100
_SETTLE = 1.5
"""Seconds in which what a server does once for a new stream is done."""

_KIB = 1024


@contextlib.contextmanager
def tracing(_options: Options) -> Iterator[Prepared]:
    """Have the server able to trace its memory."""
    with traced_environment() as environment:
        yield Prepared(environment)


def measure(server: Running, options: Options) -> Sample:
    """Open streams, and as many that are traced; what is not traced are frames and rounding."""
    make = ONE_EVENT.make(server)
    with Load(server.port) as load:

        def opened(streams: int) -> bool:
            done = open_all(load, make, streams, options.patience)
            load.run_for(_SETTLE)
            return done

        if not opened(_WARM_UP):
            return Sample(faults=faults(load))
        before = memory(server)
        if not opened(options.streams):
            return Sample(faults=faults(load))
        whole = (memory(server) - before) / options.streams
        try:
            trace = Trace(server)
            if not opened(options.streams):
                return Sample(faults=faults(load))
            parts = trace.finish()
        except NotTraced as error:
            return Sample(faults=[str(error)])
        found = faults(load)
    each = {name: size / options.streams / _KIB for name, size in parts.items()}
    return Sample(
        {
            "kib_per_stream": whole,
            **{f"{name}_kib": size for name, size in each.items()},
            "frames_kib": whole - sum(each.values()),
        },
        found,
    )


SCENARIO = Scenario(
    name="layers_memory",
    title="Layers: what the memory of an idle generator stream is taken for",
    route="open",
    servers=("sseflask_worker", "flask_gevent"),
    reference="flask_gevent",
    metrics=(
        Metric("kib_per_stream", "KiB/stream", ".2f"),
        Metric("frames_kib", "frames, rounding", ".2f"),
        Metric("stack_kib", "C's stack", ".2f"),
        *(
            Metric(f"{layer}_kib", layer.capitalize(), ".2f")
            for layer in ("gevent", "gunicorn", "flask")
        ),
        Metric("worker_kib", "sseflask's worker", ".2f"),
        Metric("sseflask_kib", "sseflask's stream", ".2f"),
        Metric("other_kib", "the application", ".2f"),
    ),
    charts=(),
    options=Options(streams=1000, seconds=0),
    measure=measure,
    rounds=3,
    prepare=tracing,
)
