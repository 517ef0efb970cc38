"""What is shown and stored of a run: a table a scenario, verdicts, machine and versions."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.running import Cores
from benchmarks.scenario import Metric, Options, Sample, Samples, Scenario, Verdict


def table(scenario: Scenario, options: Options, samples: Samples) -> str:
    """Give a scenario's table: medians with their spread, the ratio to the reference, faults."""
    first = scenario.metrics[0]
    rows = [
        [
            "server",
            *(metric.heading for metric in scenario.metrics),
            f"{first.heading} / {scenario.reference}",
        ]
    ]
    notes = []
    for name, own in samples.items():
        cells = [_cell(metric, own) for metric in scenario.metrics]
        ratio = _ratio(first, own, samples.get(scenario.reference, []))
        faults = _once(fault for sample in own for fault in sample.faults)
        rows.append([name + (" (!)" if faults else ""), *cells, ratio])
        notes += [f"  (!) {name}: {fault}" for fault in faults]
        remarks = _once(remark for sample in own for remark in sample.remarks)
        notes += [f"  {name}: {remark}" for remark in remarks]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines.insert(1, "-" * len(lines[0]))
    size = f"{options.streams} streams, {options.seconds:g} s"
    return "\n".join([f"{scenario.title} ({size})", *lines, *notes])


def _once(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def _values(metric: Metric, samples: Sequence[Sample]) -> list[float]:
    return [sample.values[metric.key] for sample in samples if metric.key in sample.values]


def _cell(metric: Metric, samples: Sequence[Sample]) -> str:
    values = _values(metric, samples)
    if not values:
        return "-"
    middle = format(statistics.median(values), metric.form)
    if len(values) == 1:
        return middle
    return f"{middle} ({min(values):{metric.form}} to {max(values):{metric.form}})"


def _ratio(metric: Metric, own: Sequence[Sample], reference: Sequence[Sample]) -> str:
    ratios = [
        sample.values[metric.key] / base.values[metric.key]
        for sample, base in zip(own, reference, strict=False)
        if metric.key in sample.values and base.values.get(metric.key)
    ]
    return f"{statistics.median(ratios):.2f}" if ratios else "-"


def judge(scenario: Scenario, samples: Samples) -> dict[str, Verdict]:
    """Give the verdict on each of a scenario's figures by its text."""
    return {figure.text: figure.judge(samples) for figure in scenario.figures}


def verdict_line(text: str, verdict: Verdict) -> str:
    """Give a line that says whether a figure holds and what was measured."""
    word = {True: "holds", False: "FAILS", None: "not measured"}[verdict.holds]
    return f"{word:>12}  {text}: {verdict.measured}"


def machine(cores: Cores) -> dict[str, Any]:
    """Give what a reader has to know of the machine."""
    information = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in information if "model name" in line]
    return {
        "processor": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "server_core": cores.server,
        "client_core": cores.client,
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Give the versions of the installed ones of these distributions."""
    found = {}
    for package in sorted(set(packages)):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def stored(
    scenario: Scenario,
    options: Options,
    samples: Samples,
    verdicts: Mapping[str, Verdict],
) -> dict[str, Any]:
    """Give a scenario's part of the JSON file: every sample, not only the medians."""
    return {
        "title": scenario.title,
        "reference": scenario.reference,
        "metrics": [asdict(metric) for metric in scenario.metrics],
        "options": asdict(options),
        "samples": {name: [asdict(sample) for sample in own] for name, own in samples.items()},
        "figures": {text: asdict(verdict) for text, verdict in verdicts.items()},
    }
