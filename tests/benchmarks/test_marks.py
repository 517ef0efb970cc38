"""The marks of events on their way across workers: each step is there, and they are the whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import marks, scenarios, servers
from benchmarks.scenario import Options
from benchmarks.server_process import running, wait_until
from tests.benchmarks.conftest import PATIENCE, cores

STEPS = (*marks.PUBLISHER, *marks.OTHER, "delivered")


def test_the_first_of_each_mark_counts(tmp_path: Path) -> None:
    one, other = marks.Marks(tmp_path / "1"), marks.Marks(tmp_path / "2")
    for folder in ("1", "2"):
        (tmp_path / folder).mkdir()
    one.note("read", b'"x"\ndata: 7 1000 xxx\n\n', 1500)
    one.note("read", b"data: 7 1000 xxx\n\n", 1600)
    one.note("writing", b"data: 7 1000 xxx\n\n")
    other.note("writing", b": no event of ours\n\n")
    ((key, found),) = marks.read(tmp_path / "1").items()
    assert key == (7, 1000)
    assert found["read"][0] == 1500
    assert any(mark.startswith("writing ") for mark in found)
    assert marks.read(tmp_path / "2") == {}


def test_the_steps_are_the_whole() -> None:
    scenario = scenarios.load("layers_across")
    size = Options(streams=10, seconds=0.5, patience=PATIENCE)
    with (
        scenario.prepare(size) as prepared,
        running(servers.load("sseflask_workers"), cores(), prepared.environment) as server,
    ):
        assert wait_until(lambda: len(server.processes()) > 2, PATIENCE)
        sample = scenario.measure(server, size)
    assert sample.faults == []
    assert {metric.key for metric in scenario.metrics} == set(sample.values)
    for prefix in ("", "slow_"):
        steps = [sample.values[f"{prefix}{step}_ms"] for step in STEPS]
        assert min(steps) >= 0
        assert sum(steps) == pytest.approx(sample.values[f"{prefix}whole_ms"])
    assert sample.values["slow_whole_ms"] >= sample.values["whole_ms"]
