"""Leave: how long after the client's close a silent generator's `finally` runs."""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.client.load import Load, Stream
from benchmarks.client.order import OrderCheck
from benchmarks.marks import VARIABLE, read_marks
from benchmarks.running import Cores, Running
from benchmarks.scenario import Figure, Metric, Options, Sample, Scenario

_PATIENCE = 3.0
_LOOK = 0.1


@contextlib.contextmanager
def marks_file(_cores: Cores, _options: Options) -> Iterator[dict[str, str]]:
    """Have an empty file in which generators leave their marks."""
    with tempfile.NamedTemporaryFile(prefix="benchmark-marks-") as file:
        yield {VARIABLE: file.name}


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
        sample.values = {"p50_ms": _percentile(delays, 50), "p99_ms": _percentile(delays, 99)}
    return sample


def _percentile(ordered: list[float], percent: float) -> float:
    return ordered[max(math.ceil(len(ordered) * percent / 100) - 1, 0)]


SCENARIO = Scenario(
    name="leave",
    title="Leave: the client's close to `finally` of a silent generator",
    servers=("sseflask_worker", "sseflask_gevent", "flask_gevent", "starlette_uvicorn"),
    reference="starlette_uvicorn",
    metrics=(Metric("p50_ms", "p50 ms", ".2f"), Metric("p99_ms", "p99 ms", ".2f")),
    options=Options(streams=400, seconds=4),
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
