"""Each stack that stores what it relays, really started: every viewer of a run has all of it."""

from __future__ import annotations

import contextlib

import pytest

from benchmarks import scenarios, servers
from benchmarks.run import Budget, Plan, run
from benchmarks.running import Cores
from benchmarks.scenario import Options
from benchmarks.stack import RUN_ROUTES


def storing() -> list[str]:
    found = []
    for name in servers.names():
        # Tried, and reported, where each server's own routes are.
        with contextlib.suppress(ImportError):
            if set(RUN_ROUTES) <= set(servers.load(name).routes):
                found.append(name)
    return found


@pytest.mark.parametrize("scenario", ["relay", "run_viewers"])
@pytest.mark.parametrize("name", storing())
def test_every_chunk_arrives_once_with_its_id(name: str, scenario: str) -> None:
    size = Options(streams=5, seconds=0.5, patience=10)
    plan = Plan(scenarios.load(scenario), size, [servers.load(name)])
    assert run([plan], 1, Budget(60), Cores.choose(), lambda _: None)
    (sample,) = plan.samples[name]
    assert sample.faults == []
    assert sample.values[plan.scenario.metrics[0].key] > 0
