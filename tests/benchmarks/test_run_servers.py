"""Each stack that stores what it relays, really started: every viewer of a run has all of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks import scenarios, servers
from benchmarks.scenario import Options
from benchmarks.server_process import Running, running
from benchmarks.upstream import Upstream
from tests.benchmarks.conftest import PATIENCE, cores
from tests.benchmarks.stacks import HAVING


@pytest.mark.parametrize("name", ["relay", "run_viewers"])
@pytest.mark.parametrize("server", HAVING["run"], indirect=True)
def test_every_chunk_arrives_once_with_its_id(
    server: Running, name: str, upstream: Upstream
) -> None:
    scenario = scenarios.load(name)
    size = Options(streams=5, seconds=0.5, patience=PATIENCE)
    sample = scenario.measure(replace(server, beside=[upstream]), size)
    assert sample.faults == []
    assert sample.values[scenario.metrics[0].key] > 0


@pytest.mark.parametrize("name", HAVING["run"])
def test_every_viewer_returns_after_a_reload_and_misses_nothing(name: str) -> None:
    scenario = scenarios.load("storm_completions")
    size = Options(streams=12, seconds=0.3, patience=PATIENCE)
    with (
        scenario.prepare(size) as prepared,
        running(servers.load(name), cores(), prepared.environment, prepared.beside) as server,
    ):
        sample = scenario.measure(server, size)
    assert sample.faults == []
    assert {metric.key for metric in scenario.metrics} == set(sample.values)


@pytest.mark.parametrize("name", ["durable", "item_viewers", "idle_runs"])
@pytest.mark.parametrize("server", HAVING["stored_items"], indirect=True)
def test_every_item_of_a_generator_arrives_once_with_its_id(server: Running, name: str) -> None:
    scenario = scenarios.load(name)
    sample = scenario.measure(server, Options(streams=5, seconds=0.5, patience=PATIENCE))
    assert sample.faults == []
    assert scenario.metrics[0].key in sample.values
