"""The profile by layer: known work counts for the layer that does it."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import scenarios
from benchmarks.layers import LAYERS, NotProfiled, layer_of, profiled, shares
from benchmarks.scenario import Options
from benchmarks.server_process import ROOT, Running
from benchmarks.upstream import Upstream
from tests.benchmarks.conftest import PATIENCE

INSTALLED = "/venv/lib/python3.11/site-packages"
STANDARD = "acquire (/usr/lib/python3.11/threading.py)"
VIEW = f"open_ ({ROOT}/benchmarks/servers/sseflask_worker.py)"
OWN = f"begin ({ROOT}/sseflask/transport/stream.py)"


@pytest.mark.parametrize(
    ("stack", "layer"),
    [
        ("", "gevent"),
        (f"run ({INSTALLED}/gevent/hub.py)", "gevent"),
        (f"handle ({INSTALLED}/gunicorn/workers/base_async.py)", "gunicorn"),
        (f"match ({INSTALLED}/werkzeug/routing/matcher.py)", "flask"),
        (f"handle ({INSTALLED}/gunicorn/workers/base_async.py);{OWN}", "sseflask"),
        (f"{OWN};{STANDARD}", "sseflask"),
        (f"wsgi_app ({INSTALLED}/flask/app.py);{VIEW}", "other"),
        (f"{OWN};send ({INSTALLED}/httpx2/client.py)", "other"),
        (STANDARD, "other"),
        ("<module> (/elsewhere/sseflask/thing.py)", "other"),
        (f"loads ({INSTALLED}/six.py)", "other"),
        ("Local.__getattr__ (<frozen _collections_abc>)", "other"),
    ],
)
def test_a_sample_counts_for_the_innermost_layer(stack: str, layer: str) -> None:
    assert layer_of(stack) == layer


def test_the_shares_are_those_of_the_samples() -> None:
    assert shares([f"{OWN} 30", f"{OWN};{STANDARD} 20", f"{VIEW} 10", " 40"]) == {
        "gevent": 0.4,
        "gunicorn": 0.0,
        "flask": 0.0,
        "sseflask": 0.5,
        "other": 0.1,
    }
    assert shares([]) == {}


WORK = """
import time

def work(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
"""


def test_known_work_counts_for_its_layer(tmp_path: Path) -> None:
    """Twice as much is done by one as by the other."""
    installed = tmp_path / "site-packages"
    installed.mkdir()
    for name in ("gunicorn", "werkzeug"):
        (installed / f"{name}.py").write_text(WORK)
    program = tmp_path / "program.py"
    program.write_text(
        "import gunicorn, werkzeug\nwhile True:\n    gunicorn.work(0.02)\n    werkzeug.work(0.01)\n"
    )
    with subprocess.Popen(
        [sys.executable, str(program)], env={"PYTHONPATH": str(installed)}
    ) as process:
        try:
            with profiled(process.pid) as finish:
                began = time.clock_gettime((~process.pid << 3) | 2)
                while time.clock_gettime((~process.pid << 3) | 2) < began + 1:
                    time.sleep(0.01)
                found = finish()
        finally:
            process.kill()
    assert 0.5 < found["gunicorn"] < 0.8
    assert 0.2 < found["flask"] < 0.5
    assert found["sseflask"] == 0


def test_a_process_that_is_not_there_is_no_figure() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
        with pytest.raises(NotProfiled), profiled(process.pid):
            pass


@pytest.mark.parametrize(
    ("name", "server"),
    [
        ("layers_generator", "sseflask_worker"),
        ("layers_generator", "flask_gevent"),
        ("layers_subscriber", "sseflask_worker"),
        ("layers_subscriber", "sseflask_service"),
        ("layers_first_chunk", "sseflask_service"),
    ],
    indirect=["server"],
)
def test_the_layers_are_the_whole(server: Running, name: str, upstream_port: socket.socket) -> None:
    scenario = scenarios.load(name)
    size = Options(streams=200, seconds=0, patience=PATIENCE)
    with contextlib.closing(Upstream(0.02, upstream_port.dup())) as upstream:
        sample = scenario.measure(replace(server, beside=[upstream]), size)
    assert sample.faults == []
    assert {metric.key for metric in scenario.metrics} == set(sample.values)
    parts = sum(sample.values[f"{layer}_us"] for layer in (*LAYERS, "kernel"))
    assert parts == pytest.approx(sample.values["cpu_us"])
    if server.stack.family == "sseflask":
        assert sample.values["sseflask_us"] > 0
