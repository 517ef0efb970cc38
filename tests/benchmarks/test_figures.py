"""How samples become figures and verdicts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from importlib.metadata import version

import pytest

from benchmarks import scenarios, servers
from benchmarks.__main__ import parse
from benchmarks.report import merged, stored, table
from benchmarks.run import Plan
from benchmarks.scenario import Figure, Options, Sample
from benchmarks.server_process import ROOT, Running, end, start, wait_until
from benchmarks.stack import ROUTES, Stack
from tests.benchmarks.conftest import cores
from tests.benchmarks.stacks import HAVING

FIGURE = Figure(text="half", metric="cost", server="ours", reference="theirs", at_most=0.5)


def samples(*costs: float) -> list[Sample]:
    return [Sample({"cost": cost}) for cost in costs]


def test_a_ratio_is_taken_within_each_repetition() -> None:
    # In a slow moment both are slow: the ratio of the medians would be 4 / 6.
    measured = {"ours": samples(1, 4, 20), "theirs": samples(6, 8, 4)}
    verdict = FIGURE.judge(measured)
    assert verdict.holds
    assert "0.5 (0.167 to 5)" in verdict.measured


def test_a_bound_that_is_missed_fails() -> None:
    assert FIGURE.judge({"ours": samples(3), "theirs": samples(4)}).holds is False


def test_a_fault_fails_whatever_the_figures_are() -> None:
    verdict = FIGURE.judge({"ours": [Sample({"cost": 0}, ["events missing"])]})
    assert verdict.holds is False
    assert "events missing" in verdict.measured


def test_a_reference_with_faults_is_no_reference() -> None:
    measured = {"ours": samples(1), "theirs": [Sample({"cost": 4}, ["events missing"])]}
    assert FIGURE.judge(measured).holds is None


@pytest.mark.parametrize("measured", [{}, {"ours": samples(1)}, {"theirs": samples(1)}])
def test_what_was_not_measured_does_not_hold(measured: dict[str, list[Sample]]) -> None:
    assert FIGURE.judge(measured).holds is None


def test_the_table_has_medians_ratios_and_faults() -> None:
    samples = {
        "flask_gevent": [
            Sample({"cpu_us_per_event": value, "events_per_second": 100}) for value in (20, 10, 30)
        ],
        "sseflask_worker": [
            Sample({"cpu_us_per_event": value, "events_per_second": 300}) for value in (10, 7, 12)
        ],
        "lossy": [Sample({"cpu_us_per_event": 1}, ["events missing: 3 on 1 of 500 streams"])] * 3,
    }
    text = table(Plan(scenarios.load("tick"), Options(500, 5), [], samples))
    cells = {line.split("  ")[0]: line for line in text.splitlines()}

    assert "20.00 (10.00 to 30.00)" in cells["flask_gevent"]
    assert "3.00 (3.00 to 3.00)" in cells["sseflask_worker"]
    assert "0.50 (0.40 to 0.70)" in cells["sseflask_worker"]
    assert "events missing" in cells["lossy (!)"]
    assert "1.00" not in cells["lossy (!)"]
    assert "(!) lossy: events missing: 3 on 1 of 500 streams" in text


def test_a_stored_run_names_machine_versions_and_every_sample() -> None:
    stack = replace(servers.load("sseflask_worker"), programs={"uname": ("uname", "-s")})
    samples = {"sseflask_worker": [Sample({"cpu_us_per_event": 1.5}, [], ["disturbed"])]}
    plan = Plan(scenarios.load("tick"), Options(500, 5), [stack], samples)

    document = json.loads(json.dumps(stored("2026-01-02", cores(), [plan])))

    assert document["versions"]["gunicorn"] == version("gunicorn")
    assert document["versions"]["uname"] == "Linux"
    assert document["servers"]["sseflask_worker"]["family"] == "sseflask"
    assert document["machine"]["cores"] == os.cpu_count()
    assert document["rounds"] == 1
    tick = document["scenarios"]["tick"]
    assert tick["samples"]["sseflask_worker"][0] == {
        "values": {"cpu_us_per_event": 1.5},
        "faults": [],
        "remarks": ["disturbed"],
    }
    assert {metric["key"] for metric in tick["metrics"]} >= set(tick["charts"])


@pytest.mark.parametrize("name", scenarios.names())
def test_each_scenario_has_its_file_name_and_judges_known_servers(name: str) -> None:
    scenario = scenarios.load(name)
    assert scenario.name == name
    judged = {figure.server for figure in scenario.figures}
    judged |= {figure.reference for figure in scenario.figures} - {""}
    assert set(scenario.charts) <= {metric.key for metric in scenario.metrics}
    assert {*scenario.servers, scenario.reference, *judged} <= set(servers.names())


@pytest.mark.parametrize("name", servers.names())
def test_each_server_has_its_file_name_and_known_routes(name: str) -> None:
    stack = servers.load(name)
    assert stack.name == name
    listed = {route for route, names in HAVING.items() if name in names}
    assert set(stack.routes) - set(ROUTES) == listed


def test_the_cpu_time_of_children_counts() -> None:
    burn = "import time\nwhile time.process_time() < 0.15: pass\n"
    code = (
        "import subprocess, sys, time\n"
        f"subprocess.run([sys.executable, '-c', {burn!r}])\n"
        f"waiting = subprocess.Popen([sys.executable, '-c', {burn!r} + 'time.sleep(60)'])\n"
        "time.sleep(60)\n"
    )
    stack = Stack(name="burner", title="burner", family="bare", command=(), packages=())
    with tempfile.TemporaryFile() as errors:
        process = start([sys.executable, "-c", code], cores().server, {}, errors)
        try:
            server = Running(stack, 0, process, {}, errors)
            assert wait_until(lambda: server.cpu() >= 0.3, 30)
        finally:
            end(process)


def test_the_command_line_names_what_there_is() -> None:
    refused = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--scenario", "nosuch"],
        cwd=ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 2
    assert f"no scenario 'nosuch'; there are {', '.join(scenarios.names())}" in refused.stderr


def test_an_output_that_charts_could_not_be_put_beside_is_refused() -> None:
    with pytest.raises(SystemExit):
        parse(["--output", "results"])
    assert parse(["--output", "results.json"]).output.name == "results.json"


def test_scenarios_are_replaced_in_a_result_of_the_same_machine_only() -> None:
    old = {
        "date": "yesterday",
        "machine": {"kernel": "6"},
        "versions": {"flask": "3", "nginx": "1"},
        "servers": {"a": {"title": "old"}, "reference": {"title": "The reference"}},
        "scenarios": {"tick": {"samples": {"a": "old"}}, "flood": "old"},
    }
    new = {
        **old,
        "date": "today",
        "versions": {"flask": "3"},
        "servers": {"a": {"title": "new"}, "reference": {"title": "reference"}},
        "scenarios": {"tick": {"samples": {"a": "new"}}},
    }

    assert merged(old, new)["scenarios"] == {"tick": {"samples": {"a": "new"}}, "flood": "old"}
    assert merged(old, new)["servers"] == {
        "a": {"title": "new"},
        "reference": {"title": "The reference"},
    }
    assert merged(old, new)["versions"] == {"flask": "3", "nginx": "1"}
    with pytest.raises(ValueError, match=r"another flask, kernel"):
        merged(old, {**new, "machine": {"kernel": "7"}, "versions": {"flask": "4"}})


def test_a_word_of_their_names_stands_for_several_servers() -> None:
    chosen = parse(["--servers", "uvicorn,sseflask_worker,sseflask"]).servers
    assert {"starlette_uvicorn", "fastapi_uvicorn", "sseflask_worker", "sseflask_gevent"} <= set(
        chosen
    )
    assert len(chosen) == len(set(chosen))
    assert "flask_gevent" not in chosen
