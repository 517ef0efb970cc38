"""Leave: how long after the client's close a silent generator's `finally` runs."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.client.load import Load, Stream
from benchmarks.client.order import OrderCheck
from benchmarks.finally_marks import VARIABLE, read_marks
from benchmarks.percentile import percentile
from benchmarks.scenario import Figure, Metric, Options, Prepared, Sample, Scenario
from benchmarks.server_process import Running

_PATIENCE = 5.0
"""More than the 3 s after which gunicorn's asgi worker looks after those who left."""

_LOOK = 0.1


@contextlib.contextmanager
def marks_file(_options: Options) -> Iterator[Prepared]:
    """Have an empty file in which generators leave their marks."""
    with tempfile.NamedTemporaryFile(prefix="benchmark-marks-") as file:
        yield Prepared({VARIABLE: file.name})


def measure(server: Running, options: Options) -> Sample:
    """Open all streams, close them one after the other, and compare with the times of the marks."""
    marks = Path(server.environment[VARIABLE])
    with Load(server.port) as load:
        requests = [server.request("silent", mark=index) for index in range(options.streams)]
        load.add((Stream(request, OrderCheck(1)) for request in requests), per_second=400)
        if not load.run_until_all_began(options.patience):
            return Sample(faults=load.faults())
        faults = [
            f"{fault.kind}: {fault.amount}"
            for stream in load.streams
            for fault in stream.check.faults()
        ]
        for stream in load.streams:
            load.leave(stream)
            load.run_for(options.seconds / options.streams)
        patience = _PATIENCE
        while len(read_marks(marks)) < options.streams and patience > 0:
            load.run_for(_LOOK)
            patience -= _LOOK
        found = read_marks(marks)
        delays = sorted(
            (found[index] - stream.left_at) / 1e6
            for index, stream in enumerate(load.streams)
            if index in found
        )
    if len(delays) < options.streams:
        missed = options.streams - len(delays)
        faults.append(f"`finally` not run {_PATIENCE:g} s later: {missed} of {options.streams}")
    sample = Sample(faults=faults)
    if delays:
        sample.values = {"p50_ms": percentile(delays, 50), "p99_ms": percentile(delays, 99)}
    return sample


SCENARIO = Scenario(
    name="leave",
    title="Leave: the client's close to `finally` of a silent generator",
    route="silent",
    reference="starlette_uvicorn",
    metrics=(Metric("p50_ms", "p50 ms", ".2f"), Metric("p99_ms", "p99 ms", ".2f")),
    charts=("p99_ms",),
    options=Options(streams=300, seconds=1),
    measure=measure,
    figures=(
        Figure(
            text="leave: the client's close to `finally` of a silent generator, p99 below 50 ms",
            metric="p99_ms",
            server="sseflask_worker",
            at_most=50,
        ),
    ),
    prepare=marks_file,
)
