"""The command line against real servers, each command a process of its own."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.live.kit.connection import fetch
from tests.live.kit.fronts import NGINX
from tests.live.kit.interrupted import FINISHED, ONE, TWO, Story, cut, refusal
from tests.live.kit.publishing import publish
from tests.live.kit.servers import ROOT, Server, environment, free_port, running
from tests.live.kit.services import SECRET, make_token, production
from tests.live.kit.tools import tool
from tests.live.kit.waiting import until
from tests.scripted_upstream import upstream

SECONDS = 60.0


def start(*arguments: str, **variables: str) -> subprocess.Popen[str]:
    # A shell's background job ignores SIGINT, and with it all that is started from there.
    return subprocess.Popen(
        ["env", "--default-signal=INT", sys.executable, "-m", "sseflask", *arguments],
        cwd=ROOT,
        env=environment(**variables),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*arguments: str, text: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    with start(*arguments, **variables) as process:
        try:
            said, complained = process.communicate(text, timeout=SECONDS)
        finally:
            process.kill()
    return subprocess.CompletedProcess(arguments, process.returncode, said, complained)


def test_tail(development: Server) -> None:
    done = run("tail", f"{development.url}/sse/v1?count=3&interval=0.01")
    assert (done.returncode, done.stderr.count("\n")) == (0, 1)
    lines = done.stdout.splitlines()
    assert [line.split()[2:] for line in lines] == [["0", "0"], ["1", "1"], ["2", "2"]]
    assert all(re.match(r"\d\d:\d\d:\d\d\.\d{3} +\+\d+\.\d{3}  ", line) for line in lines)


def test_tail_as_json_from_the_beginning(development: Server, channel: str) -> None:
    ids = [
        publish(development, channel, data, event=kind)
        for data, kind in (("a\nb", "x"), (1, "done"))
    ]
    url = f"{development.url}/channels/{channel}?until=done"
    done = run("tail", "--json", "--last-event-id", "earliest", url)
    outputs = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(each["id"], each["event"], each["data"]) for each in outputs] == [
        (ids[0], "x", "a\nb"),
        (f"{ids[1]}.end", "done", "1"),
    ]
    assert set(outputs[0]) == {"time", "id", "event", "data"}


def test_tail_comes_back() -> None:
    story = Story((cut(ONE), refusal(502, "<h1>no</h1>"), TWO + FINISHED), [])
    numbers = iter(range(10))
    with upstream(lambda exchange: story.answer(next(numbers), exchange)) as server:
        done = run("tail", "--json", "-H", "X-Mine: 1", "--token", "abc", server.url)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["data"] for line in done.stdout.splitlines()] == ["one", "two", "{}"]
    asked = [each.headers for each in server.exchanges]
    assert [each.get("last-event-id") for each in asked] == [None, "1", "1"]
    assert {(each["x-mine"], each["authorization"]) for each in asked} == {("1", "Bearer abc")}
    assert "502" in done.stderr
    assert "opened again after 1 in " in done.stderr


def test_tail_ends_with_what_reads_it(development: Server) -> None:
    with start("tail", f"{development.url}/sse/v1?count=100000&interval=0") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(SECONDS) == 1
        assert process.stderr.read() == ""


def test_ctrl_c_ends_tail(development: Server, channel: str) -> None:
    with start("tail", f"{development.url}/channels/{channel}") as process:
        publish_until_read(development, channel, process)
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 130
        assert process.stderr is not None
        assert process.stderr.read() == "\n"


def publish_until_read(server: Server, channel: str, process: subprocess.Popen[str]) -> None:
    """It has subscribed once something arrives."""
    printed = process.stdout
    assert printed is not None
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.append(printed.readline()))
    reader.start()
    until(lambda: publish(server, channel, "x") and lines, "the event was printed", pause=0.2)
    reader.join()


@pytest.mark.parametrize("command", [["tail"], ["run"], ["doctor"], ["publish", "a", "b", "--url"]])
def test_where_nobody_listens(command: list[str]) -> None:
    done = run(*command, f"http://127.0.0.1:{free_port()}/", text="hello")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "refused" in done.stderr


def test_publish(development: Server, channel: str) -> None:
    at = ["--url", development.url]
    done = [
        run("publish", *at, channel, "hello"),
        run("publish", *at, channel, '{"a": [1]}', "--json", "--event", "note"),
        run("publish", channel, "-", text="two\nlines", SSEFLASK_URL=development.url),
    ]
    assert [each.returncode for each in done] == [0, 0, 0]
    ids = [each.stdout.strip() for each in done]
    publish(development, channel, "over", event="done")
    url = f"{development.url}/channels/{channel}?until=done"
    outputs = run("tail", "--json", "--last-event-id", "earliest", url)
    seen = [json.loads(line) for line in outputs.stdout.splitlines()][:-1]
    assert [each["id"] for each in seen] == ids
    assert [(each["event"], each["data"]) for each in seen] == [
        ("message", "hello"),
        ("note", '{"a":[1]}'),
        ("message", "two\nlines"),
    ]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["no spaces", "x"], 1, "400"),
        (["news", "{", "--json"], 2, "it is not JSON"),
        (["news", "x", "--event", "gap"], 1, "gap"),
    ],
)
def test_what_can_not_be_published(
    development: Server, arguments: list[str], status: int, said: str
) -> None:
    done = run("publish", "--url", development.url, *arguments)
    assert (done.returncode, done.stdout) == (status, "")
    assert said in done.stderr


def test_run(development: Server) -> None:
    done = run("run", development.url, "what is it?")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("You said: what is it?\n")


def test_ctrl_c_stops_a_run(development: Server) -> None:
    with start("run", development.url, "-") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write("a " * 100)  # an answer that takes some seconds
        process.stdin.close()
        assert process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 130
        assert "-- stopped" in process.stderr.read()


def test_config() -> None:
    done = run("config", SSEFLASK_SECRET=SECRET, SSEFLASK_HEARTBEAT="5", SSEFLASK_HAERTBEAT="1")
    assert done.returncode == 0
    table = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()}
    assert table["SSEFLASK_HEARTBEAT"] == ["5", "environment"]
    assert table["SSEFLASK_SECRET"] == ["***", "environment"]
    assert table["SSEFLASK_MAX_BODY"] == ["1048576", "default"]
    assert "SSEFLASK_HAERTBEAT is not a setting; did you mean SSEFLASK_HEARTBEAT?" in done.stderr
    assert SECRET not in done.stdout + done.stderr


def test_the_doctor_finds_nothing(tmp_path: Path) -> None:
    settings = {"SSEFLASK_SECRET": SECRET, "SSEFLASK_HEARTBEAT": "1"}
    with production(tmp_path, settings) as server:
        done = run("doctor", server.url, SSEFLASK_TOKEN=make_token())
        assert fetch(server, "/healthz").status == 200
    assert (done.returncode, done.stderr) == (0, "")
    assert {line[:4] for line in done.stdout.splitlines()} == {"ok  "}
    assert len(done.stdout.splitlines()) >= 8


def test_the_doctor_finds_what_a_proxy_does(tmp_path: Path, development: Server) -> None:
    port = free_port()
    proxy = f"""
  server {{
    listen 127.0.0.1:{port};
    proxy_ignore_headers X-Accel-Buffering;
    proxy_buffering on;
    proxy_set_header Last-Event-ID "";
    proxy_hide_header Cache-Control;
    proxy_read_timeout 1s;
    gzip on;
    gzip_types text/event-stream;
    gzip_min_length 0;
    gzip_proxied any;
    location / {{ proxy_pass {development.url}; }}
    location = /v1/models {{ return 200 "{{}}"; }}
  }}
"""
    configuration = tmp_path / "nginx.conf"
    configuration.write_text(NGINX.format() % proxy)
    command = [tool("nginx"), "-p", str(tmp_path), "-e", "stderr", "-c", str(configuration)]
    with running("nginx", command, port, tmp_path, ready="/healthz"):
        done = run("doctor", f"127.0.0.1:{port}")
    assert (done.returncode, done.stderr) == (1, "")
    bad = {line[5:27].strip() for line in done.stdout.splitlines() if line.startswith("BAD")}
    assert bad == {"buffering", "compression", "cut and resumed", "heartbeat"}
    assert "completions: open (200)" in done.stdout
    assert "publishing: open (400)" in done.stdout
    assert "Cache-Control arrives as" in done.stdout
