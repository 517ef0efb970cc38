"""The memory by layer: known allocations count for the layer that makes them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import scenarios, servers
from benchmarks.memory_layers import PARTS, Trace, part_of, traced_environment
from benchmarks.scenario import Options
from benchmarks.server_process import ROOT, running, wait_until
from tests.benchmarks.conftest import PATIENCE, cores

INSTALLED = "/venv/lib/python3.11/site-packages"
STANDARD = "/usr/lib/python3.11/threading.py"
STREAM = f"{ROOT}/sseflask/transport/stream.py"
WORKER = f"{ROOT}/sseflask/transport/gunicorn/plain_request.py"

TAKES = """
import sys

def take(bytes):
    return bytearray(bytes)
"""

PROGRAM = """
import sys
import gunicorn, werkzeug

before = gunicorn.take(1_000_000)
print("ready", flush=True)
sys.stdin.readline()
kept = gunicorn.take(300_000), werkzeug.take(200_000)
werkzeug.take(100_000)
print("done", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize(
    ("files", "part"),
    [
        ([f"{INSTALLED}/gunicorn/http/parser.py"], "gunicorn"),
        ([f"{INSTALLED}/gunicorn/http/parser.py", WORKER], "worker"),
        ([f"{INSTALLED}/gunicorn/http/parser.py", WORKER, STANDARD], "worker"),
        ([WORKER, f"{INSTALLED}/flask/app.py", STREAM], "sseflask"),
        ([WORKER, f"{INSTALLED}/flask/app.py"], "flask"),
        ([STREAM, f"{ROOT}/benchmarks/servers/sseflask_worker.py"], "other"),
    ],
)
def test_an_allocation_counts_for_the_innermost_layer(files: list[str], part: str) -> None:
    assert part_of(files) == part


def test_known_allocations_count_for_their_layer(tmp_path: Path) -> None:
    """Those from before the first signal do not count, nor those that are gone at the second."""
    installed = tmp_path / "site-packages"
    installed.mkdir()
    for name in ("gunicorn", "werkzeug"):
        (installed / f"{name}.py").write_text(TAKES)
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    with traced_environment() as environment:
        variables = {**environment, "PYTHONPATH": f"{environment['PYTHONPATH']}:{installed}"}
        with subprocess.Popen(
            [sys.executable, str(program)],
            env=variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdin
            assert process.stdout
            server: Any = SimpleNamespace(processes=lambda: [process.pid], environment=environment)
            assert process.stdout.readline() == "ready\n"
            trace = Trace(server)
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == "done\n"
            found = trace.finish()
            process.stdin.write("\n")
    assert 300_000 <= found["gunicorn"] < 301_000
    assert 200_000 <= found["flask"] < 201_000
    assert found["worker"] == found["sseflask"] == found["stack"] == 0
    assert tuple(found) == PARTS


@pytest.mark.parametrize("name", ["sseflask_worker", "flask_gevent"])
def test_the_parts_are_the_whole(name: str) -> None:
    scenario = scenarios.load("layers_memory")
    size = Options(streams=100, seconds=0, patience=PATIENCE)
    with (
        scenario.prepare(size) as prepared,
        running(servers.load(name), cores(), prepared.environment) as server,
    ):
        # Whatever answers first may be the process that is about to start its worker.
        assert wait_until(lambda: len(server.processes()) > 1, PATIENCE)
        sample = scenario.measure(server, size)
    assert sample.faults == []
    values = sample.values
    assert {metric.key for metric in scenario.metrics} == set(values)
    whole = values.pop("kib_per_stream")
    assert sum(values.values()) == pytest.approx(whole)
    # Each stream has a greenlet, with a copy of its stack.
    assert 2 < values["stack_kib"] < 8
    assert (values["worker_kib"] > 1) == (name == "sseflask_worker")
