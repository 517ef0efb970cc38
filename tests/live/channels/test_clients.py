"""Channels with the clients that people use: curl, npm's eventsource, a browser; old HTTP."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest

from tests.live.kit.browser import chromium
from tests.live.kit.clients import curl, curl_in_background, open_stream
from tests.live.kit.connection import Connection, fetch
from tests.live.kit.publishing import channel_library, publish
from tests.live.kit.servers import Server, environment
from tests.live.kit.services import service
from tests.live.kit.tools import node_packages
from tests.live.kit.waiting import until


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
        while lines.count("\n") < 5:
            lines.append(reading.stdout.readline().decode())
            assert lines[-1], "curl has ended"
        sent = publish(channels, channel, "while curl reads")
        while lines.count("\n") < 6:
            lines.append(reading.stdout.readline().decode())
    kept = [line.rstrip("\n") for line in lines if line.startswith(("data:", "event:"))]
    assert kept == [
        "data: as a form",
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
    with service(tmp_path, "--graceful-timeout", "10") as server:
        yield server


def test_npm_eventsource_resumes_on_the_next_workers(reloaded: Server) -> None:
    """It takes an id over with an event only (the standard: also without), so it gets one first."""
    url = f"{reloaded.url}/channels?c=news&c=more.*"
    command = ["node", "eventsource.mjs", url, "message,note,gap,failure", "31"]
    with subprocess.Popen(
        command, cwd=node_packages(), env=environment(), bufsize=0, stdout=subprocess.PIPE
    ) as client:
        try:
            assert client.stdout is not None
            assert json.loads(client.stdout.readline()) == {"open": True}
            ids = [publish(reloaded, "news", "first")]
            lines = [client.stdout.readline()]
            old = reloaded.workers()
            reloaded.send_signal(signal.SIGHUP)
            assert "error" in json.loads(client.stdout.readline()), "it is told to reconnect"
            ids += [publish(reloaded, "news", f"news {n}") for n in range(10)]
            ids += [publish(reloaded, f"more.{n}", f"more {n}", event="note") for n in range(10)]
            until(lambda: not any(each.is_running() for each in old), "the old workers have ended")
            ids += [publish(reloaded, "news", f"last {n}") for n in range(10)]
            lines += client.communicate(timeout=40)[0].splitlines()
        finally:
            client.kill()
    said = [json.loads(line) for line in lines]
    assert [line for line in said if "data" in line] == [
        {"type": "message", "data": "first", "lastEventId": ids[0]},
        *({"type": "message", "data": f"news {n}", "lastEventId": ids[1 + n]} for n in range(10)),
        *({"type": "note", "data": f"more {n}", "lastEventId": ids[11 + n]} for n in range(10)),
        *({"type": "message", "data": f"last {n}", "lastEventId": ids[21 + n]} for n in range(10)),
    ]


def say(server: Server, *numbers: int) -> list[str]:
    """Publish, even if a worker was just killed and there is none for a moment."""
    ids = []
    for n in numbers:

        def said(n: int = n) -> str:
            try:
                answer = fetch(server, "/publish/news", method="POST", body=b"%d" % n)
            except (OSError, AssertionError):
                return ""
            return str(json.loads(answer.body)["id"])

        ids.append(until(said, "a worker answers"))
    return ids


def reload(server: Server) -> None:
    """Let another worker take over, and wait until the old one has ended."""
    (worker,) = server.workers()
    server.send_signal(signal.SIGHUP)
    until(lambda: not worker.is_running(), "the old worker has ended", seconds=40)


def kill(server: Server) -> None:
    (worker,) = server.workers()
    worker.kill()


def wait_for_a_subscriber(server: Server) -> None:
    """Wait until another process than this one has a connection to the worker."""
    ours = {each.laddr.port for each in psutil.Process().net_connections() if each.laddr}

    def others() -> bool:
        for worker in server.workers():
            with contextlib.suppress(psutil.Error):
                for each in worker.net_connections():
                    if each.status == psutil.CONN_ESTABLISHED and each.raddr.port not in ours:
                        return True
        return False

    until(others, "the browser is connected", seconds=40, pause=0.2)


@pytest.mark.parametrize("begin", ["", "&last_event_id=earliest"], ids=["now", "earliest"])
def test_chromium_reconnects_and_resumes(tmp_path: Path, begin: str) -> None:
    """The worker is replaced under it, then killed: its page sees each event once.

    If it begins now, its stream ends before it has had an event: its first id came in band.
    If its address says where to begin, it keeps that address when it comes back with an id
    of its own: the header is what counts.
    """
    with channel_library(tmp_path, "--graceful-timeout", "10") as server:
        before = say(server, 0, 1, 2)
        path = quote(f"/subscribe?c=news&tag=asked{begin}", safe="")
        leave = 9 if begin else 6
        with chromium(tmp_path, f"{server.url}/page?tag=report&leave={leave}&path={path}"):
            until(lambda: server.marks("asked") == ["none"], "the browser's request", seconds=40)
            wait_for_a_subscriber(server)
            reload(server)
            ids = say(server, 3, 4, 5)
            wait_for_a_subscriber(server)
            kill(server)
            ids += say(server, 6, 7, 8)
            (report,) = until(lambda: server.marks("report"), "the browser's report", seconds=40)
    expected = [[str(n), "message", sent] for n, sent in enumerate([*before, *ids])]
    assert json.loads(report) == (expected if begin else expected[3:])
    if not begin:
        assert "none" not in server.marks("asked")[1:], "it has an id from the beginning"


def test_chromium_stops_by_itself_where_the_subscription_has_ended(tmp_path: Path) -> None:
    """It comes back with the id of the last event, and gets 204: it never asks again."""
    with channel_library(tmp_path) as server:
        (before,) = say(server, 0)
        path = quote("/subscribe?c=news&tag=asked&since=earliest&until=message", safe="")
        with chromium(tmp_path, f"{server.url}/page?tag=report&path={path}"):
            (report,) = until(lambda: server.marks("report"), "the browser's report", seconds=40)
    assert json.loads(report) == [["0", "message", f"{before}.end"]]
    assert server.marks("asked") == ["none", f"{before}.end"]
