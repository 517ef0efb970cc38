"""A scenario's table in Markdown, with its faults and remarks below, and other generated text."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
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
    if notes := _notes(scenario):
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
    what = f"medians of {scenario.rounds_text} (least to most)" if many else "one round"
    return (
        f"{scenario.size}; {what}; ratios to {escaped(scenario.reference.title)} in the same round."
    )


def _notes(scenario: Scenario) -> list[str]:
    """Tell faults and remarks below the table, once for all servers and rounds that share one."""
    alike: dict[str, tuple[str, dict[str, int]]] = {}
    for server in scenario.servers.values():
        for sample in scenario.samples[server.name]:
            for text in dict.fromkeys((*sample.faults, *sample.remarks)):
                # Those that differ only in their figures are the same.
                _, titles = alike.setdefault(re.sub(r"[\d.,]+", "0", text), (text, {}))
                titles[server.title] = titles.get(server.title, 0) + 1
    return [
        f"- {escaped(text)}: {escaped('; '.join(_times(*pair) for pair in titles.items()))}"
        for text, titles in alike.values()
    ]


def _times(title: str, rounds: int) -> str:
    return title if rounds == 1 else f"{title} ({rounds} rounds)"


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
