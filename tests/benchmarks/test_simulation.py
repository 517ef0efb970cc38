"""The simulation of many machines: against formulas where there are any, and what is committed."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from benchmarks import record, simulation, simulation_charts
from benchmarks.markers import results
from benchmarks.server_process import ROOT
from benchmarks.simulation import (
    CLIENTS,
    FIRST_RECONNECT,
    SERVED,
    VISIT,
    after_a_deploy,
    after_a_restart,
    after_a_rolling_deploy,
)

DOCUMENT = "docs/scaling.md"


def test_without_a_lifetime_a_machine_fills_as_users_come_and_go() -> None:
    balances = after_a_restart(math.inf)
    assert balances[0].restarted == 0
    for balance in balances[30::30]:
        assert balance.restarted == pytest.approx(1 - math.exp(-balance.seconds / VISIT), abs=0.1)


@pytest.mark.parametrize("lifetime", [900.0, 3600.0])
def test_within_a_lifetime_the_streams_are_spread_evenly(lifetime: float) -> None:
    balances = {balance.seconds: balance for balance in after_a_restart(lifetime)}
    assert balances[lifetime / 4 // 60 * 60].restarted < 0.5
    later = [each for moment, each in balances.items() if moment >= lifetime]
    assert all(each.restarted == pytest.approx(1, abs=0.15) for each in later)
    # By chance alone the fullest of ten has a little more than the others.
    assert all(each.fullest < 1.15 for each in later)


def test_a_rolling_deploy_leaves_the_first_machine_the_fullest() -> None:
    assert 1.5 < after_a_rolling_deploy(math.inf) < 2.5


@pytest.mark.parametrize("jitter", [2.5, 10.0, 30.0])
def test_a_jitter_spreads_the_arrivals_evenly(jitter: float) -> None:
    storm = after_a_deploy(jitter)
    assert sum(storm.arrivals) == CLIENTS
    assert CLIENTS / jitter <= storm.peak < CLIENTS / jitter * 1.4
    assert storm.served >= max(CLIENTS / SERVED, FIRST_RECONNECT + jitter * 0.95)


def test_without_a_jitter_all_come_at_once_and_wait_for_their_turn() -> None:
    storm = after_a_deploy(0)
    assert max(storm.arrivals) == CLIENTS
    assert storm.served == pytest.approx(FIRST_RECONNECT + CLIENTS / SERVED)


def test_while_no_server_is_there_nobody_arrives() -> None:
    storm = after_a_deploy(2.5, down=5)
    assert sum(storm.arrivals) == CLIENTS
    assert not any(storm.arrivals[: int(5 / simulation.BIN)])


def test_the_same_seed_gives_the_same() -> None:
    assert after_a_deploy(10, seed=1) == after_a_deploy(10, seed=1) != after_a_deploy(10, seed=2)
    assert after_a_restart(900, seed=1) == after_a_restart(900, seed=1)


def test_its_figures_are_put_into_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation_charts, "FOLDER", tmp_path)
    file = tmp_path / "some.json"
    old = {
        **simulation.document(),
        "date": "2026",
        "machine": {"cores": 2},
        "scenarios": {"tick": {}},
    }
    file.write_text(json.dumps(old))
    simulation.main([str(file)])
    new = json.loads(file.read_text())
    assert (new["date"], new["machine"]) == ("2026", {"cores": 2})
    assert list(new["scenarios"]) == ["tick", "imbalance", "deploy_storm"]
    for chart in simulation_charts.charts():
        assert simulation_charts.is_current(chart, tmp_path)
        drawn = (tmp_path / f"{chart.name}.svg").read_bytes()
        simulation_charts.draw(tmp_path)
        assert (tmp_path / f"{chart.name}.svg").read_bytes() == drawn


def test_what_is_committed_is_current() -> None:
    file = results((ROOT / DOCUMENT).read_text(encoding="utf-8"), DOCUMENT)
    assert file is not None
    committed = record.load(ROOT / file).scenarios
    for name, scenario in record.read(simulation.document()).scenarios.items():
        assert committed[name] == scenario
    for chart in simulation_charts.charts():
        assert simulation_charts.is_current(chart, simulation_charts.FOLDER)
