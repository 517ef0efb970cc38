"""Figures in documents: what stands between a marker and its end is made from a result file.

A document names its file once, `<!-- results: benchmarks/results/NAME.json -->`. Then, each up to
the next `<!-- / -->`:

- in a sentence: `<!-- figure: SCENARIO SERVER METRIC -->` (the median) and
  `<!-- ratio: SCENARIO SERVER OTHER METRIC -->` (first / second, the median over the rounds);
- in a sentence as well: `<!-- per_second: SCENARIO SERVER METRIC -->`, of a metric in microseconds
  how many a core does in a second, with two digits;
- on lines of their own: `<!-- table: SCENARIO -->`, `<!-- chart: SCENARIO METRIC -->`;
- either way: `<!-- machine -->`, `<!-- versions -->`.

Where a server had faults their text stands in the figure's place. Code is left alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeVar

from benchmarks import message, tables
from benchmarks.figures import ratio_text
from benchmarks.markers import Comment, DocumentError, markers
from benchmarks.record import Metric, Record, Scenario, Server

_BLOCKS = ("table", "chart")
_INLINE = ("figure", "ratio", "per_second")

T = TypeVar("T")


def fill(text: str, record: Record, *, name: str, charts: str) -> str:
    """Give a document with everything between its markers made from a result file.

    `name` is the document's in a DocumentError; `charts` is the way from it to the charts' folder.
    """
    pieces = []
    position = 0
    for marker in markers(text, name):
        begin = marker.begin
        try:
            content = _placed(begin, _content(begin, record, charts))
        except DocumentError as error:
            raise DocumentError(f"{name}:{begin.line}: {error}") from error
        pieces += [text[position : begin.end], content]
        position = marker.end.start
    return "".join([*pieces, text[position:]])


def _placed(begin: Comment, content: str) -> str:
    if begin.word in _BLOCKS and not begin.first:
        raise DocumentError(f"`{begin.word}` has to begin a line")
    if begin.word in _INLINE and begin.first:
        raise DocumentError(
            f"`{begin.word}` must not begin a line: Markdown would take the line for HTML"
        )
    return f"\n{content}\n" if begin.first else content


def _content(begin: Comment, record: Record, charts: str) -> str:
    if begin.word == "machine":
        return tables.machine(record.machine, record.date)
    if begin.word == "versions":
        return tables.versions(record.versions)
    name, *arguments = begin.arguments
    scenario = _known("scenario", name, record.scenarios)
    if begin.word == "table":
        return tables.table(scenario)
    metric = _known(f"metric of {name}", arguments.pop(), scenario.metrics)
    if begin.word == "chart":
        return _chart(scenario, metric, charts)
    server, *others = (_known(f"server in {name}", one, scenario.servers) for one in arguments)
    if others:
        return _ratio(scenario, server, others[0], metric)
    if begin.word == "per_second":
        return _per_second(scenario, server, metric)
    return _figure(scenario, server, metric)


def _known(kind: str, name: str, there: Mapping[str, T]) -> T:
    if name not in there:
        raise DocumentError(f"no {kind} is {name!r}; there are {', '.join(there)}")
    return there[name]


def _chart(scenario: Scenario, metric: Metric, charts: str) -> str:
    if metric.key not in scenario.charts:
        there = ", ".join(scenario.charts) or "none"
        raise DocumentError(f"no chart of {scenario.name} shows {metric.key!r}; there are {there}")
    chart = message.chart(scenario, metric)
    return f"![{tables.escaped(chart.title)}]({charts}/{chart.name}.svg)"


def _figure(scenario: Scenario, server: Server, metric: Metric) -> str:
    if metric.wall:
        raise DocumentError(
            f"{metric.key!r} depends on the machine's speed in that moment; show a ratio: "
            f"<!-- ratio: {scenario.name} {server.name} {scenario.reference.name} {metric.key} -->"
        )
    value = scenario.value(server, metric)
    return tables.escaped(value) if isinstance(value, str) else metric.text(value.median)


def _per_second(scenario: Scenario, server: Server, metric: Metric) -> str:
    if "µs" not in metric.heading:
        raise DocumentError(f"{metric.key!r} is not in microseconds")
    value = scenario.value(server, metric)
    if isinstance(value, str):
        return tables.escaped(value)
    rate = 1e6 / value.median
    return f"{round(rate, 1 - math.floor(math.log10(rate))):,.0f}"


def _ratio(scenario: Scenario, server: Server, other: Server, metric: Metric) -> str:
    value = scenario.ratio(server, other, metric)
    return tables.escaped(value) if isinstance(value, str) else ratio_text(value.median)
