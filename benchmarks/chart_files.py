"""Where a chart is, and whether it is the current one; nothing here needs matplotlib."""

from __future__ import annotations

from pathlib import Path

from benchmarks.message import Chart


def files(chart: Chart, folder: Path) -> tuple[Path, Path]:
    """Give the two files of a chart."""
    return folder / f"{chart.name}.svg", folder / f"{chart.name}.png"


def is_current(chart: Chart, folder: Path) -> bool:
    """Say whether a chart's two files show these figures, whichever matplotlib has drawn them."""
    digest = chart.digest().encode()
    return all(file.exists() and digest in file.read_bytes() for file in files(chart, folder))
