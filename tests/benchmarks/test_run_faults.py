"""What a server of runs does wrong ends up in the sample of the scenarios that relay."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from benchmarks import scenarios
from benchmarks.run import Budget, Plan, run
from benchmarks.scenario import Options, Sample
from benchmarks.stack import CHANNEL_ROUTES, ROUTES, RUN_ROUTES, Stack
from tests.benchmarks.conftest import cores

FAULTS = {
    "lost": "events missing",
    "doubled": "events repeated or out of order",
    "cut": "cut short",
    "no id": "events without an id",
    "garbled id": "no id of a run: b'0000",
    "id left out": "ids missing",
    "id twice": "ids repeated or out of order",
    "no end": "ids missing at the end",
    "other run": "ids of another run",
}
STREAMS = {"relay": 2, "run_viewers": 4}
PATIENCE = 10.0
SHORT = 4.0
"""Of faults after which something does not come at all."""

ENDURED = {"lost", "cut", "full"}

pytestmark = pytest.mark.usefixtures("no_pauses")


def scripted(fault: str) -> Stack:
    return Stack(
        name="scripted",
        title="scripted",
        family="bare",
        command=(sys.executable, "-m", "tests.benchmarks.scripted_runs", "{port}", fault),
        packages=(),
        routes={
            "relay": ROUTES["relay"],
            **RUN_ROUTES,
            **{name: CHANNEL_ROUTES[name] for name in ("subscribe", "publish")},
        },
    )


def measure(scenario: str, stack: Stack) -> Sample:
    patience = SHORT if stack.command[-1] in ENDURED else PATIENCE
    size = Options(STREAMS[scenario], 0.3, patience)
    plan = Plan(scenarios.load(scenario), size, [stack])
    assert run([plan], 1, Budget(60), cores(), lambda _: None)
    return plan.samples["scripted"][0]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("scenario", STREAMS)
def test_a_fault_is_in_the_sample(scenario: str, fault: str) -> None:
    sample = measure(scenario, scripted(fault))

    assert any(FAULTS[fault] in found for found in sample.faults), sample


def test_streams_of_one_run_are_not_streams_of_their_own() -> None:
    faults = measure("relay", scripted("shared")).faults

    assert any(found.endswith(" streams of 1 runs") for found in faults)


def test_a_viewer_that_is_turned_away_is_in_the_sample() -> None:
    assert "run: status 503: 1 on 1 of 4 streams" in measure("run_viewers", scripted("full")).faults


@pytest.mark.parametrize("fault", ["none", "comments"])
@pytest.mark.parametrize("scenario", STREAMS)
def test_an_honest_server_has_figures_and_no_faults(scenario: str, fault: str) -> None:
    sample = measure(scenario, scripted(fault))

    assert sample.faults == []
    busy = any("did not keep up" in remark for remark in sample.remarks)
    for metric in scenarios.load(scenario).metrics:
        if metric.key.startswith("redis_"):
            continue
        # The machine's doing; there is no latency then.
        assert (busy and metric.key.endswith("_ms")) or sample.values[metric.key] > 0


def test_of_a_server_that_stores_nothing_no_ids_are_asked() -> None:
    stack = replace(scripted("no id"), routes={"relay": ROUTES["relay"]})

    assert measure("relay", stack).faults == []
