"""Clients that people use: curl, npm's eventsource, a browser; and the whole way through nginx."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.live.kit.browser import chromium
from tests.live.kit.clients import curl
from tests.live.kit.kinds import GEVENT, SERVERS, on_every_server, probe_server
from tests.live.kit.servers import Server, environment
from tests.live.kit.tools import node, node_packages
from tests.live.kit.waiting import until


def npm_eventsource(url: str, types: str = "message,failure", *limit: str) -> list[dict[str, Any]]:
    """What npm's eventsource dispatches until it is closed for good, or `limit` events came."""
    done = node("eventsource.mjs", url, types, *limit)
    return [json.loads(line) for line in done.stdout.splitlines()]


@on_every_server
def test_curl(server: Server) -> None:
    done = curl(server, "/numbers?ids&count=5", "-i")
    assert done.returncode == 0, done.stderr
    head, _, body = done.stdout.partition("\n\n")
    assert head.splitlines()[0].rstrip() == "HTTP/1.1 200 OK"
    assert "text/event-stream; charset=utf-8" in head
    assert body == "".join(f"id: {n}\ndata: {n}\n\n" for n in range(5))


@on_every_server
def test_npm_eventsource_reads_to_the_end_and_stops_at_204(server: Server) -> None:
    """After a clean end it comes back with its last id; 204 then ends it for good."""
    lines = npm_eventsource(f"{server.url}/numbers?ids&count=20&interval=0.005&retry=50")
    messages = [line for line in lines if "data" in line]
    assert messages == [
        {"type": "message", "data": str(n), "lastEventId": str(n)} for n in range(20)
    ]
    assert lines[0] == {"open": True}
    assert lines[-1] == {"error": 204, "closed": True}


def test_npm_eventsource_resumes_on_the_next_worker(tmp_path: Path) -> None:
    """The worker is replaced under it: nothing is lost, nothing comes twice."""
    with probe_server("gunicorn-worker", tmp_path, "--graceful-timeout", "10") as server:
        command = ["node", "eventsource.mjs", f"{server.url}/numbers?ids&count=100000"]
        with subprocess.Popen(
            [*command, "message,failure"],
            cwd=node_packages(),
            env=environment(),
            bufsize=0,
            stdout=subprocess.PIPE,
        ) as client:
            assert client.stdout is not None
            try:
                said = [json.loads(client.stdout.readline()) for _ in range(5)]
                server.send_signal(signal.SIGHUP)
                while sum("open" in line for line in said) < 2:
                    said.append(json.loads(client.stdout.readline()))
                    assert len(said) < 3000, "it had to come back"
                said += [json.loads(client.stdout.readline()) for _ in range(20)]
            finally:
                client.kill()
    messages = [line for line in said if "data" in line]
    assert messages == [
        {"type": "message", "data": str(n), "lastEventId": str(n)} for n in range(len(messages))
    ]
    assert "data" in said[-1], "it goes on"


@on_every_server
def test_npm_eventsource_gets_failures_in_band(server: Server) -> None:
    *_, message, failure = npm_eventsource(
        f"{server.url}/error?after=1&failure", "message,failure", "2"
    )
    assert (message["type"], message["data"]) == ("message", "0")
    assert failure["type"] == "failure"
    assert json.loads(failure["data"])["error"]["code"] == "slow_down"


@pytest.fixture(scope="module")
def browsed(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[Server, str, str], list[list[str]]]:
    """Lets Chromium read a path of a server and report what its EventSource dispatched."""

    def browse(server: Server, path: str, tag: str) -> list[list[str]]:
        directory = tmp_path_factory.mktemp("browser")
        address = f"{server.url}/page?tag={tag}&path={quote(path, safe='')}"
        if "leave=" in path:
            address += "&leave=" + path.partition("leave=")[2]
        with chromium(directory, address):
            (report,) = until(lambda: server.marks(tag), "the browser's report", seconds=40)
        dispatched: list[list[str]] = json.loads(report)
        return dispatched

    return browse


@pytest.mark.parametrize("server", SERVERS, indirect=True)
def test_chromium_reads_to_the_end_and_stops_at_204(
    server: Server, tag: str, browsed: Callable[[Server, str, str], list[list[str]]]
) -> None:
    path = f"/numbers?ids&count=20&interval=0.01&retry=50&tag={tag}-stream"
    assert browsed(server, path, tag) == [[str(n), "message", str(n)] for n in range(20)]
    server.wait_for_mark(f"{tag}-stream", "finally")


@pytest.mark.parametrize("server", GEVENT, indirect=True)
def test_chromium_leaves_a_silent_stream(
    server: Server, tag: str, browsed: Callable[[Server, str, str], list[list[str]]]
) -> None:
    path = f"/silent?ids&heartbeat=9999&tag={tag}-stream&leave=1"
    assert browsed(server, path, tag) == [["first", "message", "1"]]
    server.wait_for_mark(f"{tag}-stream", "finally")
