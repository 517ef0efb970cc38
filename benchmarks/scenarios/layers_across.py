"""Layers: where the time of an event goes that one worker is given and another one delivers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean

from benchmarks import marks
from benchmarks.published_events import logs
from benchmarks.scenario import Metric, Options, Prepared, Sample, Scenario
from benchmarks.scenarios import crossworker
from benchmarks.server_process import Running

_STEPS = {
    "read": "read by a worker",
    "handed": "request",
    "taken": "to the store's thread",
    "stored": "stored",
    "sent": "to the sending",
    "received": "to the other worker",
    "writing": "to be written",
    "delivered": "written",
}
"""Each step's end, and what it is called."""

_SLOWEST = 10
"""One in so many deliveries is one of the slowest."""


def measure(server: Running, options: Options) -> Sample:
    """Time each step of the deliveries across, of all of them and of the slowest tenth."""
    found = crossworker.time_deliveries(server, options)
    if found.sample.faults:
        return found.sample
    noted = _steps(Path(server.environment[marks.VARIABLE]))
    paths = sorted(
        (
            [*steps, (delay / 1e6) - sum(steps)]
            for number, delays in found.across.items()
            if (steps := noted.get(number)) is not None
            for delay in delays
        ),
        key=sum,
    )
    if len(paths) < _SLOWEST:
        return Sample(faults=["hardly an event has all of its marks"])
    sample = Sample(remarks=found.sample.remarks)
    for prefix, some in (("", paths), ("slow_", paths[-(len(paths) // _SLOWEST) :])):
        sample.values[f"{prefix}whole_ms"] = fmean(map(sum, some))
        for name, times in zip(_STEPS, zip(*some, strict=True), strict=True):
            sample.values[f"{prefix}{name}_ms"] = fmean(times)
    return sample


def _steps(folder: Path) -> Mapping[int, Sequence[float]]:
    """Give the milliseconds of each step but the last, by the number of an event with all marks."""
    found = {}
    for (number, sent), times in marks.read(folder).items():
        if not times.keys() >= {*marks.PUBLISHER}:
            continue
        publisher = times["read"][1]
        theirs = [
            [
                at
                for key, (at, process) in times.items()
                if key.split()[0] == mark and process != publisher
            ]
            for mark in marks.OTHER
        ]
        if not all(theirs):
            continue
        moments = [sent, *(times[mark][0] for mark in marks.PUBLISHER), *map(min, theirs)]
        found[number] = [(later - earlier) / 1e6 for earlier, later in pairwise(moments)]
    return found


@contextlib.contextmanager
def prepare(_options: Options) -> Iterator[Prepared]:
    """Have files for the server's logs, and a folder for the marks."""
    with logs() as files, marks.marked_environment() as marked:
        yield Prepared({**files, **marked})


SCENARIO = Scenario(
    name="layers_across",
    title="Layers: where the time of an event across workers goes",
    route="publish_across",
    servers=("sseflask_workers",),
    reference="sseflask_workers",
    metrics=tuple(
        Metric(f"{prefix}{name}_ms", f"{before}{heading} ms", ".2f")
        for prefix, before in (("", ""), ("slow_", "the slowest tenth: "))
        for name, heading in {"whole": "all", **_STEPS}.items()
    ),
    charts=(),
    options=Options(streams=100, seconds=3),
    measure=measure,
    rounds=5,
    prepare=prepare,
)
