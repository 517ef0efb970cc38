"""A scenario's table in Markdown, with its faults and remarks below, and other generated text."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks import figures
from benchmarks.figures import Spread
from benchmarks.record import Metric, Scenario, Server

_NOTHING = "-"
_LONGEST = 60


def table(scenario: Scenario) -> str:
    """Give the table: medians with their spread, the ratio to the reference, the best first."""
    main = scenario.main
    headings = ["server", *map(_heading, scenario.metrics.values())]
    if not main.wall:
        headings.append(f"{main.heading}, ratio")
    rows = [
        _row(scenario, server, isinstance(value, str)) for server, value in scenario.ranked(main)
    ]
    lines = [
        _line([escaped(heading) for heading in headings]),
        _line(["---", *["---:"] * (len(headings) - 1)]),
        *map(_line, rows),
        "",
        _caption(scenario),
    ]
    if notes := [note for server in scenario.servers.values() for note in _notes(scenario, server)]:
        lines += ["", *notes]
    return "\n".join(lines)


def _heading(metric: Metric) -> str:
    return f"{metric.heading}, ratio" if metric.wall else metric.heading


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _row(scenario: Scenario, server: Server, nothing: bool) -> list[str]:
    """Give a server's cells; where it had faults the first one says so and the others are empty."""
    metrics = list(scenario.metrics.values())
    shown = [scenario.value(server, metric) for metric in metrics]
    ratio = [] if metrics[0].wall else [scenario.ratio(server, scenario.reference, metrics[0])]
    if nothing and figures.faults(scenario.samples[server.name]):
        reason = escaped(shortened(str(shown[0])))
        return [escaped(server.title), reason, *[_NOTHING] * (len(shown) + len(ratio) - 1)]
    cells = [_cell(value, metric) for value, metric in zip(shown, metrics, strict=True)]
    last = [figures.ratio_text(v.median) if isinstance(v, Spread) else _NOTHING for v in ratio]
    return [escaped(server.title), *cells, *last]


def _cell(value: Spread | str, metric: Metric) -> str:
    if isinstance(value, str):
        return _NOTHING
    median, least, most = map(metric.text, value)
    return median if least == most else f"{median} ({least} to {most})"


def _caption(scenario: Scenario) -> str:
    many = scenario.rounds > 1
    what = f"medians of {scenario.rounds} rounds (least to most)" if many else "one round"
    return (
        f"{scenario.size}; {what}; ratios to {escaped(scenario.reference.title)} in the same round."
    )


def _notes(scenario: Scenario, server: Server) -> list[str]:
    samples = scenario.samples[server.name]
    remarks = [remark for sample in samples for remark in sample.remarks]
    texts = [*figures.faults(samples), *_grouped(remarks, len(samples))]
    return [f"- {escaped(server.title)}: {escaped(text)}" for text in texts]


def _grouped(remarks: Iterable[str], rounds: int) -> list[str]:
    """Tell remarks that differ only in their figures once."""
    alike: dict[str, list[str]] = {}
    for remark in remarks:
        alike.setdefault(re.sub(r"[\d.,]+", "0", remark), []).append(remark)
    return [
        first if not others else f"{first} (the like in {len(others) + 1} of {rounds} rounds)"
        for first, *others in alike.values()
    ]


def machine(machine: Mapping[str, Any], date: str) -> str:
    """Give one sentence on what was measured where and when."""
    return escaped(
        f"Measured on {date[:10]} on {machine['cores']} cores of {machine['processor']}, "
        f"Linux {machine['kernel']}, Python {machine['python']}."
    )


def versions(versions: Mapping[str, str]) -> str:
    """Give the versions of everything that was measured, in one line."""
    return escaped(", ".join(f"{name} {version}" for name, version in sorted(versions.items())))


def shortened(text: str) -> str:
    """Cut a fault's text to what a table's cell can hold; the note below the table has it all."""
    return textwrap.shorten(text, _LONGEST, placeholder=" ...")


def escaped(text: str) -> str:
    """Make a text mean itself in Markdown, on one line, also in a table's cell."""
    return re.sub(r"([\\`*_<|\[\]])", r"\\\1", " ".join(text.split()))
