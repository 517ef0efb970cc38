"""A fast loser of events is no winner: what a server does wrong ends up in its sample."""

from __future__ import annotations

import sys
import time
from dataclasses import replace

import pytest

from benchmarks import scenarios
from benchmarks.run import Budget, Plan, run
from benchmarks.scenario import Metric, Options, Sample, Scenario
from benchmarks.server_process import Running
from benchmarks.stack import Stack
from tests.benchmarks.conftest import cores

FAULTS = {
    "drop": "events missing",
    "repeat": "events repeated or out of order",
    "swap": "events repeated or out of order",
    "stall": "stalled",
    "cut": "cut short",
    "early": "ended too early",
    "garbage": "no chunk length",
    "status": "status 503",
    "mute": "stalled",
}

ONE_STREAM = ("flood", "mute")
"""Where some streams are to go on while another never begins."""

SIZES = {
    "flood": Options(streams=1, seconds=0.05),
    "tick": Options(streams=4, seconds=0.2),
}
COMBINATIONS = [
    (scenario, fault) for scenario in SIZES for fault in FAULTS if (scenario, fault) != ONE_STREAM
]


pytestmark = pytest.mark.usefixtures("no_pauses")


def measure(scenario: str, stack: Stack) -> Sample:
    # A short one only after what never comes: a busy machine may stand still for a second.
    patience = 1 if stack.command[-1] in ("mute", "stall") else 10
    plan = Plan(scenarios.load(scenario), replace(SIZES[scenario], patience=patience), [stack])
    assert run([plan], 1, Budget(60), cores(), lambda _: None)
    (sample,) = plan.samples[stack.name]
    return sample


def scripted(fault: str) -> Stack:
    return Stack(
        name="scripted",
        title="scripted",
        family="bare",
        command=(sys.executable, "-m", "tests.benchmarks.scripted_server", "{port}", fault),
        packages=(),
    )


@pytest.mark.parametrize(("scenario", "fault"), COMBINATIONS)
def test_a_fault_is_in_the_sample(scenario: str, fault: str) -> None:
    sample = measure(scenario, scripted(fault))

    assert any(FAULTS[fault] in found for found in sample.faults), sample


@pytest.mark.parametrize("scenario", SIZES)
@pytest.mark.parametrize("fault", ["none", "comments"])
def test_an_honest_server_has_figures_and_no_faults(scenario: str, fault: str) -> None:
    sample = measure(scenario, scripted(fault))

    assert sample.faults == []
    assert sample.values["events_per_second"] > 0
    assert sample.values["cpu_us_per_event"] > 0


@pytest.mark.parametrize(("what", "remarked"), [("warns", True), ("informs", False)])
def test_a_server_that_complains_has_a_remark(what: str, remarked: bool) -> None:
    sample = measure("flood", scripted(what))

    assert sample.faults == []
    assert ("wrote to its error log" in sample.remarks) == remarked


def test_a_server_that_does_not_start_says_why() -> None:
    stack = Stack(
        name="broken",
        title="broken",
        family="bare",
        command=(sys.executable, "-c", "raise SystemExit('no such stack')"),
        packages=(),
    )

    assert measure("flood", stack).faults == ["not started: no such stack"]


def plan_of(name: str, measured: list[str], seconds: float, rounds: int = 0) -> Plan:
    """A plan whose measurement takes no server's work, only time; notes what was measured."""

    def note(server: Running, _options: Options) -> Sample:
        measured.append(f"{name} {server.stack.name}")
        time.sleep(seconds)
        return Sample({"cost": 1.0})

    scenario = Scenario(
        name=name,
        title=name,
        route="tick",
        reference="scripted",
        metrics=(Metric("cost", "cost"),),
        charts=(),
        options=SIZES["tick"],
        measure=note,
        rounds=rounds,
    )
    return Plan(scenario, SIZES["tick"], [scripted("none"), replace(scripted("none"), name="too")])


def test_rounds_are_interleaved_and_a_scenario_may_have_fewer() -> None:
    measured: list[str] = []
    plans = [plan_of("a", measured, 0), plan_of("b", measured, 0, rounds=1)]

    assert run(plans, 2, Budget(60), cores(), lambda _: None)

    first, second = ["a scripted", "a too"], ["b scripted", "b too"]
    assert measured == [*first, *second, *first]


def test_what_would_end_after_the_time_is_left_out_and_said() -> None:
    measured: list[str] = []
    messages: list[str] = []
    plan = plan_of("a", measured, 2)

    assert not run([plan], 9, Budget(9), cores(), messages.append)

    assert 2 <= len(measured) < 5
    assert f"{18 - len(measured)} of 18 steps left out" in messages[-1]


def test_what_a_measurement_raises_is_a_fault_and_the_run_goes_on() -> None:
    def fail(_server: Running, _options: Options) -> Sample:
        raise RuntimeError("no figures today")

    messages: list[str] = []
    plan = plan_of("a", [], 0)
    plan.scenario = replace(plan.scenario, measure=fail)

    assert run([plan], 1, Budget(60), cores(), messages.append)

    assert [own[0].faults for own in plan.samples.values()] == [
        ["not measured: RuntimeError('no figures today')"]
    ] * 2
    assert any("Traceback" in text for text in messages)
