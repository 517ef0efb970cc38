"""The description of a scenario: what is measured, and what must hold."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from benchmarks.client.load import Beside
from benchmarks.figures import ratios, spread, values
from benchmarks.server_process import Running

_BUSY = 0.8


@dataclass(frozen=True)
class Options:
    """The size of one measurement.

    `patience`: seconds without an event on any stream after which those still open have stalled.
    """

    streams: int
    seconds: float
    patience: float = 10.0


@dataclass(frozen=True)
class Metric:
    """One figure of a sample: its key, the heading with its unit, how it is printed.

    `wall`: it depends on the speed of the machine in that moment, so it is shown as a ratio to
    the reference in the same round. `more_is_better` is for who reads a chart.
    """

    key: str
    heading: str
    form: str = ".1f"
    wall: bool = False
    more_is_better: bool = False


@dataclass
class Sample:
    """What one repetition on one server gave; a figure that could not be had is left out."""

    values: dict[str, float] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def client_limit(cpu: float, took: float) -> list[str]:
    """Give the remark that a server with time to spare gets where speed was to be measured."""
    if cpu >= took * _BUSY:
        return []
    return [f"its core was {cpu / took:.0%} busy: the client was the limit"]


Samples = Mapping[str, list[Sample]]
"""The samples of a run by the server's name, in the order of the repetitions."""


@dataclass(frozen=True)
class Verdict:
    """Whether a figure holds (None: it was not measured), and what was measured."""

    holds: bool | None
    measured: str


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A bound on a metric of one server, or, with a `reference`, on its ratio to another's.

    A ratio is taken within each repetition, and the median of the ratios counts.
    """

    text: str
    metric: str
    server: str
    reference: str = ""
    at_least: float = float("-inf")
    at_most: float = float("inf")

    def judge(self, samples: Samples) -> Verdict:
        """Compare the samples of a run with the bound; a fault on the measured server fails it."""
        own = samples.get(self.server, [])
        faults = [fault for sample in own for fault in sample.faults]
        if faults:
            return Verdict(False, f"{self.server}: {faults[0]}")
        if self.reference:
            known = ratios(own, samples.get(self.reference, []), self.metric)
            shown = f"{self.metric} / {self.reference}"
        else:
            known = values(own, self.metric)
            shown = self.metric
        if not known:
            return Verdict(None, "not measured")
        middle, least, most = spread(known)
        range_ = f" ({least:.3g} to {most:.3g})" if len(known) > 1 else ""
        return Verdict(self.at_least <= middle <= self.at_most, f"{shown} = {middle:.3g}{range_}")


@dataclass(frozen=True)
class Prepared:
    """What surrounds a server: additions to its environment, and what runs beside the load."""

    environment: Mapping[str, str] = field(default_factory=dict)
    beside: tuple[Beside, ...] = ()


@contextlib.contextmanager
def nothing_to_prepare(_options: Options) -> Iterator[Prepared]:
    """Add nothing to what surrounds the server."""
    yield Prepared()


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A way to load a server.

    `measure` is called with a freshly started server, warms it up and gives a sample.
    `prepare` surrounds the server's life.
    Where none are named, `servers` are measured, or, without these, all that have the `route`;
    ratios are to `reference`.
    The first metric is the main one: the table gives its ratio, and `charts` are the keys of those
    that get a chart. `rounds`: at most so many repetitions, however many are asked for (0: all).
    """

    name: str
    title: str
    route: str
    servers: tuple[str, ...] = ()
    reference: str
    metrics: tuple[Metric, ...]
    charts: tuple[str, ...]
    options: Options
    measure: Callable[[Running, Options], Sample]
    figures: tuple[Figure, ...] = ()
    rounds: int = 0
    prepare: Callable[[Options], contextlib.AbstractContextManager[Prepared]] = nothing_to_prepare
