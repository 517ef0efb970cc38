"""The load client as it runs for tests of behaviour, and each stack started once."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from benchmarks import servers, subscribers, window
from benchmarks.client import load, requester
from benchmarks.finally_marks import VARIABLE
from benchmarks.published_events import logs
from benchmarks.scenarios import comeback, idle, run_viewers, scale, slow_reader, storm, tick
from benchmarks.server_process import Cores, Running, answers, running, wait_until
from benchmarks.upstream import Upstream

PATIENCE = 30.0
"""Seconds for what takes a moment: two workers start on a core that others may use."""


def cores() -> Cores:
    """The cores as they are chosen, in turn for the processes that run tests beside each other."""
    chosen = Cores.choose()
    odd = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 2
    return Cores(chosen.client, chosen.server) if odd else chosen


@pytest.fixture(autouse=True)
def waiting_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the load client wait for its server: asking again and again would take a core.

    The first answer of a server that still starts may take long.
    """
    monkeypatch.setattr(load, "WAIT", 0.001)
    monkeypatch.setattr(requester, "_PATIENCE", PATIENCE)


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the times in which real servers do what they do once: scripted ones do nothing."""
    for module, name, value in (
        (window, "WARM_UP", 0.1),
        (tick, "WARM_UP", 0.1),
        (subscribers, "_SETTLE", 0.02),
        (run_viewers, "_SETTLE", 0.02),
        (scale, "_SETTLE", 0.05),
        (idle, "_SETTLE", 0.05),
        (slow_reader, "_PAIRS", 1),
        (storm, "_AWAY", 0.0),
        (comeback, "_BEFORE", 0.1),
        (comeback, "_CHANNELS", 2),
    ):
        monkeypatch.setattr(module, name, value)


@pytest.fixture(scope="session")
def upstream_port() -> Iterator[socket.socket]:
    """Where the stacks find their upstream, whichever test it answers for."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        yield listener


@pytest.fixture(scope="session")
def server(
    request: pytest.FixtureRequest,
    upstream_port: socket.socket,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Running]:
    """A stack by its name, for all tests that name it: starting one is what costs.

    Each test uses channels of its own, or leaves none of what it published on its way.
    """
    stack = servers.load(request.param)
    with logs() as files:
        environment = {
            **files,
            VARIABLE: str(tmp_path_factory.mktemp("marks") / "marks"),
            "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream_port.getsockname()[1]}/v1",
            "OPENAI_API_KEY": "none",
        }
        with running(stack, cores(), environment) as started:
            yield started
    # The first process has been waited for; its workers may take a moment longer.
    assert wait_until(lambda: not answers(started.port), PATIENCE)


@pytest.fixture
def upstream(upstream_port: socket.socket) -> Iterator[Upstream]:
    """The upstream of the stacks, for one test."""
    upstream = Upstream(100, upstream_port.dup())
    yield upstream
    upstream.close()
