"""A result file, read: servers, scenarios, every sample, and how a figure of it is shown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import figures
from benchmarks.figures import Spread


@dataclass(frozen=True)
class Server:
    """A measured stack; `family` says whose idea of serving it follows."""

    name: str
    title: str
    family: str


@dataclass(frozen=True)
class Metric:
    """One figure of a scenario; `wall` metrics are shown as ratios to the scenario's reference."""

    key: str
    heading: str
    form: str
    wall: bool
    more_is_better: bool

    def text(self, value: float) -> str:
        """Print a value as it is shown, a ratio where the metric is one of time on the wall."""
        return figures.ratio_text(value) if self.wall else format(value, self.form)


@dataclass(frozen=True)
class Sample:
    """What one round on one server gave."""

    values: Mapping[str, float]
    faults: tuple[str, ...]
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class Scenario:
    """One scenario's part of a result file; the first metric is the main one."""

    name: str
    title: str
    reference: Server
    metrics: Mapping[str, Metric]
    charts: tuple[str, ...]
    streams: int
    seconds: float
    servers: Mapping[str, Server]
    samples: Mapping[str, tuple[Sample, ...]]

    @property
    def main(self) -> Metric:
        """The metric that the table is sorted by."""
        return next(iter(self.metrics.values()))

    @property
    def size(self) -> str:
        """The streams open at a time, and the seconds where the scenario has any."""
        streams = f"{self.streams:,} stream" + ("s" if self.streams != 1 else "")
        return f"{streams}, {self.seconds:g} s" if self.seconds else streams

    @property
    def rounds_text(self) -> str:
        """How many rounds there were; two numbers where the time ended within the last one."""
        amounts = {len(own) for own in self.samples.values() if not figures.faults(own)}
        least, most = min(amounts, default=0), max(amounts, default=0)
        return f"{most} rounds" if least == most else f"{least} to {most} rounds"

    @property
    def rounds(self) -> int:
        """How often each server was measured."""
        return max(map(len, self.samples.values()), default=0)

    def value(self, server: Server, metric: Metric) -> Spread | str:
        """Give a figure as it is shown, or the text that stands in its place."""
        if metric.wall:
            return self.ratio(server, self.reference, metric)
        own = self.samples[server.name]
        if found := figures.faults(own):
            return found[0]
        known = figures.values(own, metric.key)
        return figures.spread(known) if known else "not measured"

    def ratio(self, server: Server, other: Server, metric: Metric) -> Spread | str:
        """Give the ratios of the first server's figure to the other's, within the rounds."""
        own, base = self.samples[server.name], self.samples.get(other.name, ())
        if found := figures.faults(own):
            return found[0]
        if found := figures.faults(base):
            return f"no ratio, {other.title}: {found[0]}"
        known = figures.ratios(own, base, metric.key)
        return figures.spread(known) if known else "not measured"

    def ranked(self, metric: Metric) -> list[tuple[Server, Spread | str]]:
        """Give the servers with their figures, the best first, those without a figure last."""
        shown = [(server, self.value(server, metric)) for server in self.servers.values()]
        measured = [pair for pair in shown if not isinstance(pair[1], str)]
        others = [pair for pair in shown if isinstance(pair[1], str)]
        measured.sort(key=lambda pair: pair[1], reverse=metric.more_is_better)
        return [*measured, *others]


@dataclass(frozen=True)
class Record:
    """All of a result file that documents and charts are made of."""

    date: str
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    scenarios: Mapping[str, Scenario]


def load(path: Path) -> Record:
    """Read a result file."""
    return read(json.loads(path.read_text(encoding="utf-8")))


def read(document: Mapping[str, Any]) -> Record:
    """Take a result file's JSON; KeyError or TypeError where it has not the shape of one."""
    servers = {
        name: Server(name, server["title"], server["family"])
        for name, server in document["servers"].items()
    }
    return Record(
        date=document["date"],
        machine=document["machine"],
        versions=document["versions"],
        scenarios={
            name: _scenario(name, scenario, servers)
            for name, scenario in document["scenarios"].items()
        },
    )


def _scenario(name: str, scenario: Mapping[str, Any], servers: Mapping[str, Server]) -> Scenario:
    samples = {
        server: tuple(
            Sample(sample["values"], tuple(sample["faults"]), tuple(sample["remarks"]))
            for sample in own
        )
        for server, own in scenario["samples"].items()
    }
    return Scenario(
        name=name,
        title=scenario["title"],
        reference=servers[scenario["reference"]],
        metrics={metric["key"]: Metric(**metric) for metric in scenario["metrics"]},
        charts=tuple(scenario["charts"]),
        streams=scenario["options"]["streams"],
        seconds=scenario["options"]["seconds"],
        servers={server: servers[server] for server in samples},
        samples=samples,
    )
