"""The charts of the simulation: lines over time; the same figures give the same bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.server_process import ROOT
from benchmarks.simulation import (
    BIN,
    CLIENTS,
    JITTERS,
    LIFETIMES,
    MACHINES,
    SERVED,
    after_a_deploy,
    after_a_restart,
)

FOLDER = ROOT / "docs" / "charts"

_SHOWN = 3 * 3600.0
"""Seconds after a restart that are shown."""

_COLOURS = ("#9aa0a6", "#3a7fb0", "#d9480f")


@dataclass(frozen=True)
class Lines:
    """A chart; `lines` are points by their names, in the order of the legend."""

    name: str
    title: str
    axes: tuple[str, str]
    lines: Mapping[str, Sequence[tuple[float, float]]]
    level: tuple[str, float]
    """A height that the lines are to be compared with, and what it is."""

    def digest(self) -> str:
        """Give a short name for all of this, by which a drawn chart is known to be current."""
        everything = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(everything.encode()).hexdigest()[:16]


def imbalance() -> Lines:
    """Give the share of a machine that has restarted, over time."""
    return Lines(
        "simulated-imbalance",
        f"One of {MACHINES} machines restarts: how many streams it has afterwards",
        ("hours after its restart", "% of an even share"),
        {
            name: [
                (each.seconds / 3600, round(each.restarted * 100, 1))
                for each in after_a_restart(lifetime)
                if each.seconds <= _SHOWN
            ]
            for name, lifetime in LIFETIMES.items()
        },
        ("an even share", 100),
    )


def storm() -> Lines:
    """Give the arrivals at a machine after a deploy, over time."""
    return Lines(
        "simulated-storm",
        f"After a deploy: {CLIENTS:,} clients of a machine come back",
        ("seconds after the deploy", "arrivals per second"),
        {
            # With none all come in the same moment: a line of its own height would hide the others.
            name: [
                (place * BIN, amount / BIN)
                for place, amount in enumerate(after_a_deploy(jitter).arrivals)
            ]
            for name, jitter in JITTERS.items()
            if jitter
        },
        ("what one worker serves", SERVED),
    )


def charts() -> tuple[Lines, ...]:
    """Give every chart of the simulation."""
    return imbalance(), storm()


def is_current(chart: Lines, folder: Path) -> bool:
    """Say whether a chart's file shows these figures, whichever matplotlib has drawn it."""
    file = folder / f"{chart.name}.svg"
    return file.exists() and chart.digest() in file.read_text(encoding="utf-8")


def draw(folder: Path) -> None:
    """Write `<name>.svg` of each chart into a folder that exists."""
    import matplotlib.style
    from matplotlib.figure import Figure

    from benchmarks.charts import INK, PALE, STYLE

    with matplotlib.style.context(["default", STYLE]):
        for chart in charts():
            figure = Figure(figsize=(8.33, 3.7), facecolor="white")
            place = figure.add_axes((0.1, 0.145, 0.875, 0.73))
            for (name, points), colour in zip(chart.lines.items(), _COLOURS, strict=False):
                place.plot(*zip(*points, strict=True), label=name, color=colour, linewidth=2)
            text, height = chart.level
            place.axhline(height, color=INK, linewidth=1, linestyle="--", label=text)
            place.set_xlim(left=0)
            place.set_ylim(bottom=0)
            place.set_xlabel(chart.axes[0], color=PALE)
            place.set_ylabel(chart.axes[1], color=PALE)
            place.yaxis.set_major_formatter("{x:,.0f}")
            place.tick_params(colors=PALE)
            place.grid(color="#eaeef2")
            for side, spine in place.spines.items():
                spine.set_visible(side in ("left", "bottom"))
                spine.set_color("#8c959f")
            place.legend(frameon=False, labelcolor=INK, loc="best")
            figure.text(0.018, 0.93, chart.title, size=13, weight="bold", color=INK)
            figure.savefig(
                folder / f"{chart.name}.svg",
                format="svg",
                metadata={"Description": chart.digest(), "Date": None},
            )
