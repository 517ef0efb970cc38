"""Channels with the clients that people use: curl, npm's eventsource, a browser; old HTTP."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest

from tests.live.browser import chromium
from tests.live.clients import curl, curl_in_background, open_stream
from tests.live.conftest import node_packages
from tests.live.connection import Connection, fetch
from tests.live.publishing import channel_library, channel_service, publish
from tests.live.servers import Server, environment
from tests.live.waiting import until


@pytest.mark.parametrize("path", ["/channels/{}", "/channels?c={}&c={}.*"])
def test_head(channels: Server, channel: str, path: str) -> None:
    with Connection(channels) as connection:
        connection.request(
            path.format(channel, channel), method="HEAD", headers={"Connection": "close"}
        )
        head = connection.head()
        assert head.status == 200
        assert head.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert connection.at_end(), "HEAD has no body"


def test_head_of_what_is_wrong(channels: Server) -> None:
    with Connection(channels) as connection:
        connection.request("/channels/a**", method="HEAD", headers={"Connection": "close"})
        assert connection.head().status == 400
        assert connection.at_end()


def test_http_1_0(channels: Server, channel: str) -> None:
    """No chunks: the body is what comes before the end."""
    first = publish(channels, channel, "first")
    path = f"/channels/{channel}?last_event_id=earliest"
    with open_stream(channels, path, version="1.0") as stream:
        assert "transfer-encoding" not in stream.head.headers
        event = stream.next()
        assert (event.id, event.data) == (first, "first")
        ids = [publish(channels, channel, str(n)) for n in range(20)]
        assert [stream.next().id for _ in range(20)] == ids


def test_curl_publishes_and_subscribes(channels: Server, channel: str) -> None:
    path = f"/channels/{channel}"
    for options in (
        ("-d", "as a form"),
        ("-d", '{"data": "as JSON, said to be a form"}'),
        ("-H", "Content-Type: application/json", "-d", '{"data": {"a": 1}, "event": "note"}'),
        ("-H", "Content-Type: text/plain", "--data-binary", "two\nlines"),
        ("--json", '[{"data": "one"}, {"data": "two"}]'),
    ):
        done = curl(channels, path, *options)
        assert done.returncode == 0, done.stderr
        assert set(json.loads(done.stdout)) <= {"id", "ids"}, done.stdout
    with curl_in_background(channels, f"{path}?last_event_id=earliest") as reading:
        assert reading.stdout is not None
        lines: list[str] = []
        while lines.count("\n") < 6:
            lines.append(reading.stdout.readline().decode())
            assert lines[-1], "curl has ended"
        sent = publish(channels, channel, "while curl reads")
        while lines.count("\n") < 7:
            lines.append(reading.stdout.readline().decode())
    kept = [line.rstrip("\n") for line in lines if line.startswith(("data:", "event:"))]
    assert kept == [
        "data: as a form",
        "data: as JSON, said to be a form",
        "event: note",
        'data: {"a":1}',
        "data: two",
        "data: lines",
        "data: one",
        "data: two",
        "data: while curl reads",
    ]
    assert f"id: {sent}\n" in lines


@pytest.fixture
def reloaded(tmp_path: Path) -> Iterator[Server]:
    """A service that the test reloads."""
    with channel_service(tmp_path, "--graceful-timeout", "10", workers=2) as server:
        yield server


def test_npm_eventsource_resumes_on_the_next_workers(reloaded: Server) -> None:
    """Its first id comes in band: what is published before it is back is not lost, although it
    had not had an event yet."""
    url = f"{reloaded.url}/channels?c=news&c=more.*"
    command = ["node", "eventsource.mjs", url, "message,note,gap,failure", "30"]
    with subprocess.Popen(
        command, cwd=node_packages(), env=environment(), bufsize=0, stdout=subprocess.PIPE
    ) as client:
        try:
            assert client.stdout is not None
            assert json.loads(client.stdout.readline()) == {"open": True}
            reloaded.send_signal(signal.SIGHUP)
            assert "error" in json.loads(client.stdout.readline()), "it is sent away"
            ids = [publish(reloaded, "news", f"news {n}") for n in range(10)]
            ids += [publish(reloaded, f"more.{n}", f"more {n}", event="note") for n in range(10)]
            assert json.loads(client.stdout.readline()) == {"open": True}
            lines = [client.stdout.readline() for _ in range(20)]
            ids += [publish(reloaded, "news", f"last {n}") for n in range(10)]
            lines += client.communicate(timeout=40)[0].splitlines()
        finally:
            client.kill()
    said = [json.loads(line) for line in lines]
    assert [line for line in said if "data" in line] == [
        *({"type": "message", "data": f"news {n}", "lastEventId": ids[n]} for n in range(10)),
        *({"type": "note", "data": f"more {n}", "lastEventId": ids[10 + n]} for n in range(10)),
        *({"type": "message", "data": f"last {n}", "lastEventId": ids[20 + n]} for n in range(10)),
    ]


def test_chromium_reconnects_and_resumes(tmp_path: Path) -> None:
    """The worker is replaced under it, or killed: its page sees each event once.

    The address says where to begin, and it keeps that address when it comes back with an id of
    its own: the header is what counts.
    """

    def say(*numbers: int) -> list[str]:
        return [
            json.loads(fetch(server, "/publish/news", method="POST", body=b"%d" % n).body)["id"]
            for n in numbers
        ]

    with channel_library(tmp_path, "--graceful-timeout", "10") as server:
        ids = say(0, 1, 2)
        path = quote("/subscribe?c=news&tag=asked&last_event_id=earliest", safe="")
        with chromium(tmp_path, f"{server.url}/page?tag=report&leave=9&path={path}"):
            until(lambda: server.marks("asked") == ["none"], "the browser's request", seconds=40)
            wait_for_a_subscriber(server)
            (worker,) = server.workers()
            server.send_signal(signal.SIGHUP)
            ids += say(3, 4, 5)
            until(lambda: len(server.marks("asked")) >= 2, "the browser is back", seconds=40)
            until(lambda: not worker.is_running(), "the old worker has ended", seconds=40)
            # Whoever came back too early was sent away once more; now it is where it stays.
            wait_for_a_subscriber(server)
            (worker,) = server.workers()
            worker.kill()
            ids += say_until_heard(server, [6, 7, 8])
            (report,) = until(lambda: server.marks("report"), "the browser's report", seconds=40)
    assert json.loads(report) == [[str(n), "message", ids[n]] for n in range(9)]
    assert set(server.marks("asked")[1:]) <= set(ids[2:6])


def wait_for_a_subscriber(server: Server) -> None:
    """Until a connection is open between the server and somebody else than this process."""
    ours = psutil.Process().pid

    def others() -> bool:
        return any(
            connection.raddr
            and connection.raddr.port == server.port
            and connection.status == psutil.CONN_ESTABLISHED
            and connection.pid not in (None, ours)
            for connection in psutil.net_connections("tcp")
        )

    until(others, "the browser is connected", seconds=40)


def say_until_heard(server: Server, numbers: list[int]) -> list[str]:
    """Publish although the worker has just been killed: there is none for a moment."""
    ids = []
    for n in numbers:

        def said(n: int = n) -> str:
            try:
                answer = fetch(server, "/publish/news", method="POST", body=b"%d" % n)
            except (OSError, AssertionError):
                return ""
            return str(json.loads(answer.body)["id"])

        ids.append(until(said, "a new worker answers"))
    return ids
