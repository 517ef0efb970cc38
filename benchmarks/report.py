"""The report of a run: a table for each scenario, verdicts, machine and versions."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.figures import faults, ratios, spread, values
from benchmarks.run import Plan
from benchmarks.scenario import Metric, Sample, Verdict
from benchmarks.server_process import Cores


def table(plan: Plan) -> str:
    """Give a scenario's table: medians with their spread, the ratio to the reference, faults."""
    scenario = plan.scenario
    main = scenario.metrics[0]
    reference = plan.samples.get(scenario.reference, [])
    headings = [
        f"{metric.heading} (x)" if metric.wall else metric.heading for metric in scenario.metrics
    ]
    rows = [["server", *headings, *([] if main.wall else [f"{main.heading} (x)"])]]
    notes = []
    for name, own in plan.samples.items():
        cells = [_cell(metric, own, reference) for metric in scenario.metrics]
        if not main.wall:
            cells.append(_range(ratios(own, reference, main.key), ".2f"))
        found = faults(own)
        if found:
            # A figure of a server that did not deliver what it should have is worth nothing.
            cells = [_short(found[0]), *("-" for _ in cells[1:])]
        rows.append([name + (" (!)" if found else ""), *cells])
        notes += [f"  (!) {name}: {fault}" for fault in found]
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
    size = f"{plan.options.streams} streams"
    if plan.options.seconds:
        size += f", {plan.options.seconds:g} s"
    legend = f"  (x): times that of {scenario.reference} in the same round"
    return "\n".join([f"{scenario.title} ({size})", *lines, legend, *notes])


def _once(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def _short(text: str) -> str:
    return text if len(text) <= 24 else f"{text[:23]}…"


def _cell(metric: Metric, own: Sequence[Sample], reference: Sequence[Sample]) -> str:
    if metric.wall:
        return _range(ratios(own, reference, metric.key), ".2f")
    return _range(values(own, metric.key), metric.form)


def _range(found: Sequence[float], form: str) -> str:
    if not found:
        return "-"
    middle, least, most = spread(found)
    if len(found) == 1:
        return format(middle, form)
    return f"{middle:{form}} ({least:{form}} to {most:{form}})"


def judge(plan: Plan) -> dict[str, Verdict]:
    """Give the verdict on each of a scenario's figures by its text."""
    return {figure.text: figure.judge(plan.samples) for figure in plan.scenario.figures}


def verdict_line(text: str, verdict: Verdict) -> str:
    """Give a line that says whether a figure holds and what was measured."""
    word = {True: "holds", False: "FAILS", None: "not measured"}[verdict.holds]
    return f"{word:>12}  {text}: {verdict.measured}"


def stored(moment: str, cores: Cores, plans: Sequence[Plan]) -> dict[str, Any]:
    """Give the JSON document of a run: every sample, not only the medians."""
    stacks = {stack.name: stack for plan in plans for stack in plan.stacks}
    return {
        "date": moment,
        "machine": _machine(cores),
        "versions": _versions(package for stack in stacks.values() for package in stack.packages)
        | {
            name: _program(command)
            for stack in stacks.values()
            for name, command in stack.programs.items()
        },
        "rounds": max((len(own) for plan in plans for own in plan.samples.values()), default=0),
        "servers": {
            name: {"title": stacks[name].title, "family": stacks[name].family}
            if name in stacks
            # Not installed, or a reference that this run left out.
            else {"title": name, "family": "bare"}
            for plan in plans
            for name in (*plan.samples, plan.scenario.reference)
        },
        "scenarios": {plan.scenario.name: _scenario(plan) for plan in plans},
    }


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Give an older run's document with a newer one's scenarios in place of its own.

    ValueError where they are not of the same machine and versions: they can't stand side by side.
    """
    differences = [
        name
        for kind in ("machine", "versions")
        for name in old[kind].keys() & new[kind].keys()
        if old[kind][name] != new[kind][name]
    ]
    if differences:
        raise ValueError(f"the older results are of another {', '.join(sorted(differences))}")
    measured = {name for scenario in new["scenarios"].values() for name in scenario["samples"]}
    # Of a reference that only the older run measured the newer one knows no title.
    unmeasured = {name: it for name, it in old["servers"].items() if name not in measured}
    return {
        **old,
        "versions": old["versions"] | new["versions"],
        "servers": old["servers"] | new["servers"] | unmeasured,
        "scenarios": old["scenarios"] | new["scenarios"],
    }


def _machine(cores: Cores) -> dict[str, Any]:
    information = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in information if "model name" in line]
    return {
        "processor": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "server_core": cores.server,
        "client_core": cores.client,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "descriptor_limit": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    }


def _versions(packages: Iterable[str]) -> dict[str, str]:
    found = {}
    for package in sorted(set(packages)):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _program(command: Sequence[str]) -> str:
    """Give the first line of what a program says of its version."""
    # nginx tells on standard error.
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    return next(iter((told.stdout + told.stderr).splitlines()), "does not tell")


def _scenario(plan: Plan) -> dict[str, Any]:
    scenario = plan.scenario
    return {
        "title": scenario.title,
        "reference": scenario.reference,
        "metrics": [asdict(metric) for metric in scenario.metrics],
        "charts": list(scenario.charts),
        "options": asdict(plan.options),
        "samples": {name: [asdict(sample) for sample in own] for name, own in plan.samples.items()},
        "figures": {text: asdict(verdict) for text, verdict in judge(plan).items()},
    }
