"""What a server of channels does wrong ends up in the sample of every scenario that publishes."""

from __future__ import annotations

import re
import sys

import pytest

from benchmarks import scenarios
from benchmarks.run import Budget, Plan, run
from benchmarks.scenario import Options, Sample
from benchmarks.scenarios import crossworker
from benchmarks.stack import CHANNEL_ROUTES, Stack
from tests.benchmarks.conftest import cores

FAULTS = {
    # An event waits for the one before, or it does not.
    "lost": "not every event came in time|events missing",
    "late": "not every event came in time",
    "doubled": "events repeated or out of order",
    "garbled": "unexpected event b'something else'",
    "ended": "ended",
    "cut": "cut short",
    "refused": "refused: status 503",
    "hung up": "not published: the connection ended",
    "mute": "no response",
    "full": "status 503",
    "waits": "an event did not reach everybody",
}
COMEBACK_FAULTS = {
    "refused": "event 8 refused: status 503",
    "hung up": "event 8 not published: the connection ended",
    "lost": "events missing",
    "doubled": "events repeated or out of order",
    "no ids": "no events with ids",
    "full": "status 503",
    "mute": "not every event came in time",
    # Of those that return.
    "forgotten": "events missing",
    "replayed twice": "events repeated or out of order",
    "replay cut": "cut short",
    "lost by the returned": "events missing",
}
STORM_FAULTS = {
    "no ids": "an event without an id",
    "full": "status 503",
    "mute": "no response",
    "not ended": "a redeploy did not end all streams",
    "cut by the redeploy": "cut short by the redeploy: 4 of 4 streams",
    # Of those that return.
    "closed": "on connecting: ECONNREFUSED",
    "turned away": "status 503",
    "forgotten": "not every event came in time",
    "replayed twice": "events repeated or out of order",
    "replay cut": "cut short",
    "lost by the returned": "not every event came in time",
}
STREAMS = {"scale": 20, "publish_arrays": 1, "publish": 1}
SCENARIOS = (
    "fanout",
    "slow_reader",
    "scale",
    "responsive",
    "publish_arrays",
    "publish",
    "publish_arrays_beside",
)
PATIENCE = 10.0
SHORT = 4.0
"""Of faults after which something does not come at all."""

ENDURED = {
    *("lost", "lost last", "late", "ended", "cut", "mute", "full"),
    *("no ids", "forgotten", "lost by the returned", "not ended"),
}
ONE_SUBSCRIBER = ("publish", "publish_arrays")
COMBINATIONS = [
    *(("fanout", fault) for fault in FAULTS if fault not in ("waits",)),
    ("slow_reader", "waits"),
    *((name, fault) for name in SCENARIOS if name != "fanout" for fault in ("lost", "refused")),
    *((name, "doubled") for name in ONE_SUBSCRIBER),
]

pytestmark = pytest.mark.usefixtures("no_pauses")


def scripted(fault: str) -> Stack:
    return Stack(
        name="scripted",
        title="scripted",
        family="bare",
        command=(sys.executable, "-m", "tests.benchmarks.scripted_channels", "{port}", fault),
        packages=(),
        routes=CHANNEL_ROUTES,
    )


def measure(scenario: str, fault: str) -> Sample:
    patience = SHORT if fault in ENDURED else PATIENCE
    if fault == "waits":
        # 200 events, one after the other, fill the buffers of one that does not read.
        patience = 15
    size = Options(STREAMS.get(scenario, 4), 0.3, patience)
    plan = Plan(scenarios.load(scenario), size, [scripted(fault)])
    assert run([plan], 1, Budget(60), cores(), lambda _: None)
    return plan.samples["scripted"][0]


@pytest.mark.parametrize(("scenario", "fault"), COMBINATIONS)
def test_a_fault_is_in_the_sample(scenario: str, fault: str) -> None:
    sample = measure(scenario, fault)

    assert any(re.search(FAULTS[fault], found) for found in sample.faults), sample


@pytest.mark.parametrize("fault", COMEBACK_FAULTS)
def test_a_fault_is_in_the_sample_of_those_that_return(fault: str) -> None:
    sample = measure("comeback", fault)

    assert any(COMEBACK_FAULTS[fault] in found for found in sample.faults), sample


@pytest.mark.parametrize("fault", STORM_FAULTS)
def test_a_fault_is_in_the_sample_of_a_storm(fault: str) -> None:
    sample = measure("storm", fault)

    assert any(STORM_FAULTS[fault] in found for found in sample.faults), sample


def test_the_last_event_that_is_lost_is_missed() -> None:
    assert "not every event came in time: 1 of 1 streams" in measure("publish", "lost last").faults


@pytest.mark.parametrize("fault", ["none", "comments"])
@pytest.mark.parametrize("scenario", [*SCENARIOS, "comeback", "storm"])
def test_an_honest_server_has_figures_and_no_faults(scenario: str, fault: str) -> None:
    sample = measure(scenario, fault)

    assert sample.faults == []
    for metric in scenarios.load(scenario).metrics:
        if not metric.key.startswith("redis_"):
            assert sample.values[metric.key] > 0 or "kib" in metric.key


@pytest.mark.parametrize("scenario", ["connect_subscribers", "idle_subscribers"])
def test_one_that_is_turned_away_is_in_the_sample(scenario: str) -> None:
    assert any("status 503" in found for found in measure(scenario, "full").faults)


def test_what_is_answered_wrongly_meanwhile_is_a_fault() -> None:
    found = measure("responsive", "unwell").faults
    assert found == ["status 503 to a request beside", "nothing was answered"]


def test_one_worker_is_not_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crossworker, "_TRIES", 20)
    found = measure("crossworker", "none").faults
    assert found == ["20 connections in a row came to one worker"]
