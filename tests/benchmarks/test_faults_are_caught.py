"""A fast loser of events is no winner: what a server does wrong ends up in its sample."""

from __future__ import annotations

import sys

import pytest

from benchmarks import scenarios
from benchmarks.run import run_scenario
from benchmarks.running import Cores
from benchmarks.scenario import Options, Sample
from benchmarks.stack import Stack

FAULTS = {
    "drop": "events missing",
    "repeat": "events repeated or out of order",
    "swap": "events repeated or out of order",
    "stall": "stalled",
    "cut": "cut short",
    "early": "ended too early",
    "garbage": "no chunk length",
    "status": "status 503",
}

SIZES = {
    "flood": Options(streams=1, seconds=0.05, patience=1),
    "tick": Options(streams=4, seconds=0.2, patience=1),
}


def measure(scenario: str, fault: str) -> Sample:
    stack = Stack(
        name="scripted",
        title="scripted",
        command=(sys.executable, "-m", "tests.benchmarks.scripted_server", "{port}", fault),
        packages=(),
    )
    samples = run_scenario(
        scenarios.load(scenario),
        [stack],
        SIZES[scenario],
        repeats=1,
        cores=Cores.choose(),
        progress=lambda _: None,
    )
    (sample,) = samples["scripted"]
    return sample


@pytest.mark.parametrize("scenario", SIZES)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_in_the_sample(scenario: str, fault: str) -> None:
    sample = measure(scenario, fault)

    assert any(FAULTS[fault] in found for found in sample.faults), sample


@pytest.mark.parametrize("scenario", SIZES)
@pytest.mark.parametrize("fault", ["none", "comments"])
def test_an_honest_server_has_figures_and_no_faults(scenario: str, fault: str) -> None:
    sample = measure(scenario, fault)

    assert sample.faults == []
    assert sample.values["events_per_second"] > 0
    assert sample.values["cpu_us_per_event"] > 0


def test_a_server_that_does_not_start_says_why() -> None:
    stack = Stack(
        name="broken",
        title="broken",
        command=(sys.executable, "-c", "raise SystemExit('no such stack')"),
        packages=(),
    )

    samples = run_scenario(
        scenarios.load("flood"), [stack], SIZES["flood"], 1, Cores.choose(), lambda _: None
    )

    assert samples["broken"][0].faults == ["not started: no such stack"]
