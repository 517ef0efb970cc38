"""SSEFLASK_LOG_FORMAT=json: whatever is logged is one JSON object a line; and request ids."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.live.kit.connection import Connection, fetch
from tests.live.kit.servers import GUNICORN, Server, environment, free_port, running
from tests.live.kit.services import SECRET, authorization, make_token, production
from tests.live.kit.waiting import until

JSON = {"SSEFLASK_LOG_FORMAT": "json"}
CONF = ["-c", "python:sseflask.gunicorn_conf"]
NOISY = "tests.live.service.noisy_app:app"


def lines(server: Server) -> list[dict[str, Any]]:
    """All that has been written so far, but for what is being written."""
    text = server.log()
    made = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
    for line in made:
        assert re.fullmatch(r"[0-9-]{10}T[0-9:]{8}\.\d{6}Z", line["time"])
        assert {"level", "logger", "message", "pid"} <= set(line)
    return made


def wait_for(server: Server, **fields: Any) -> dict[str, Any]:
    """The line that has these."""

    def find() -> dict[str, Any] | None:
        wanted = fields.items()
        return next((line for line in lines(server) if wanted <= _flat(line).items()), None)

    return until(find, f"a line with {fields}") or {}


def _flat(line: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if not isinstance(value, (dict, list))}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {**JSON, "SSEFLASK_SECRET": SECRET, "SSEFLASK_PUBLIC_CHANNELS": "lobby"}
    with production(tmp_path_factory.mktemp("json"), settings) as server:
        yield server
    messages = [line["message"] for line in lines(server)]
    # From the first line to the last.
    assert messages[0].startswith("Starting gunicorn")
    assert messages[-1].startswith("Shutting down: Master")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/sse/no_sse", 200),
        ("GET", "/sse/v1?count=3&interval=0", 200),
        ("POST", "/sse/openai_out", 200),
        ("GET", "/sse/v1?count=abc", 400),
        ("POST", "/channels/lobby", 401),
        ("GET", "/nothing", 404),
        ("DELETE", "/sse/v1", 405),
        ("GET", "/sse/v1?count=3&last_event_id=2", 204),
        ("HEAD", "/sse/v1", 200),
        ("OPTIONS", "*", 204),
    ],
)
def test_a_request_has_one_id_everywhere(
    service: Server, tag: str, method: str, path: str, status: int
) -> None:
    with Connection(service) as connection:
        for asked in (tag, None):
            headers = {"X-Request-Id": asked} if asked else {}
            connection.request(path, method=method, headers={**headers, "User-Agent": 'é "\\ b'})
            head = connection.head()
            if method != "HEAD" and status != 204:
                connection.body(head)
            assert head.status == status
            id = head.headers["x-request-id"]
            assert id == asked or (asked is None and re.fullmatch("[0-9a-f]{32}", id))
            line = wait_for(service, logger="gunicorn.access", request_id=id)
            assert (line["method"], line["path"]) == (method, path.partition("?")[0])
            assert (line["status"], line["peer"]) == (status, "127.0.0.1")
            assert line["message"] == f"{method} {line['path']} {status}"
            assert line["seconds"] >= 0
            assert line["bytes"] >= 0
            assert line["user_agent"] == 'é "\\ b'


def test_a_subscriber_that_needs_no_greenlet(service: Server, tag: str) -> None:
    with Connection(service) as connection:
        connection.request("/channels/lobby", headers={"X-Request-Id": tag})
        assert connection.head().headers["x-request-id"] == tag
        token = make_token("--publish", "lobby")
        headers = authorization(token)
        assert (
            fetch(service, "/channels/lobby", method="POST", headers=headers, body=b"a").status
            == 201
        )
        while b"data: a" not in connection.buffer:
            connection.socket.settimeout(20)
            connection.buffer += connection.socket.recv(4096)
    line = wait_for(service, logger="gunicorn.access", request_id=tag)
    assert (line["path"], line["status"]) == ("/channels/lobby", 200)
    assert line["bytes"] > 10
    assert line["seconds"] > 0
    assert token not in service.log()


@pytest.mark.parametrize(
    ("path", "kind", "events"),
    [
        ("/sse/v1?count=3&interval=0", "stream", 3),
        ("/sse/openai_out?format=text", "run", 20),
        ("/channels/lobby?last_event_id=earliest", "channel", 0),
    ],
)
def test_a_stream_has_a_line_at_its_begin_and_at_its_end(
    service: Server, tag: str, path: str, kind: str, events: int
) -> None:
    with Connection(service) as connection:
        connection.request(path, headers={"X-Request-Id": tag})
        head = connection.head()
        if kind != "channel":
            connection.body(head)
    opened = wait_for(service, logger="sseflask.streams", message="stream opened", request_id=tag)
    ended = wait_for(service, logger="sseflask.streams", message="stream ended", request_id=tag)
    asked = {"kind": kind, "method": "GET", "path": path.partition("?")[0], "peer": "127.0.0.1"}
    for line in (opened, ended):
        assert asked.items() <= line.items()
        assert line["level"] == "INFO"
    assert ended["reason"] == ("left" if kind == "channel" else "done")
    assert ended["events"] >= events
    assert ended["bytes"] >= 15 * events
    assert 0 <= ended["seconds"] < 60


def test_the_end_of_a_completion(service: Server) -> None:
    answer = fetch(service, "/sse/openai_out", method="POST", body=b"")
    line = wait_for(service, logger="sseflask", run=answer.headers["x-run-id"])
    assert line["message"].startswith(f"run {line['run']}: finished (stop) after ")
    assert line["outcome"] == "finished"
    assert line["frames"] > 10


@pytest.mark.parametrize("sent", [b"GARBAGE\r\n\r\n", b"GET /\xff\n HTTP/1.1\r\n\r\n"])
def test_what_is_no_request_is_refused_with_an_id(service: Server, sent: bytes) -> None:
    with Connection(service) as connection:
        connection.socket.sendall(sent)
        head = connection.head()
        connection.body(head)
    assert head.status == 400
    assert head.headers["cache-control"] == "no-store"
    line = wait_for(service, request_id=head.headers["x-request-id"], level="WARNING")
    assert line["message"].startswith("Invalid request from ip=127.0.0.1: ")


def test_a_head_that_is_slow_is_refused_with_an_id(service: Server) -> None:
    """The next request of a connection is not taken for the one before."""
    with Connection(service) as connection:
        connection.request("/healthz", headers={"X-Request-Id": "before"})
        connection.body(connection.head())
        connection.socket.sendall(b"GARBAGE\r\n\r\n")
        head = connection.head()
        assert head.status == 400
        assert head.headers["x-request-id"] != "before"


@pytest.fixture(scope="module", params=["sseflask.transport.worker.StreamWorker", "gevent"])
def noisy(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A user's application, under our configuration."""
    port = free_port()
    command = [*GUNICORN, *CONF, "-k", request.param, "-b", f"127.0.0.1:{port}", NOISY]
    with running("gunicorn-noisy", command, port, tmp_path_factory.mktemp("noisy"), JSON) as server:
        yield server
    assert lines(server)
    assert "abcdef" not in server.log()


ERROR = r"ProbeError: access_token=*** [CRITICAL] forged\u001b[2J\udcff"


@pytest.mark.parametrize("path", ["/early", "/late", "/upgraded"])
def test_an_error_of_an_application(noisy: Server, tag: str, path: str) -> None:
    with Connection(noisy) as connection:
        connection.request(path, headers={"X-Request-Id": tag})
        connection.body(connection.head())
    line = wait_for(noisy, level="ERROR", request_id=tag)
    assert line["exception"].startswith("Traceback (most recent call last):\n")
    assert line["exception"].rpartition("\n")[2].endswith(ERROR)
    wait_for(noisy, logger="gunicorn.access", path=path, request_id=tag)
    if path == "/upgraded":
        wait_for(noisy, message="between two events", request_id=tag)


def test_an_error_of_what_wraps_an_application(noisy: Server, tag: str) -> None:
    with Connection(noisy) as connection:
        connection.request("/fragile", headers={"X-Request-Id": tag})
        head = connection.head()
        connection.body(head)
    assert head.status == 500
    line = wait_for(noisy, level="ERROR", request_id=tag)
    assert line["message"] == "Error handling request GET /fragile"
    assert line["exception"].rpartition("\n")[2].endswith(ERROR)
    if "StreamWorker" in " ".join(noisy.process.args):  # type: ignore[arg-type]  # a list
        assert head.headers["x-request-id"] == tag


def test_what_an_application_says(noisy: Server, tag: str) -> None:
    fetch(noisy, "/says", headers={"X-Request-Id": tag})
    said = wait_for(noisy, logger="noisy", request_id=tag)
    assert said["message"].startswith("said by the application: access_token=***")
    by_library = wait_for(noisy, logger="noisy.library", message="said by a library")
    assert by_library["shop"] == {"items": [1, 2]}
    assert by_library["bytes"] == r"\xff\n"
    for name in ("Greenlet at", "Thread-"):
        (line,) = [each for each in lines(noisy) if name in each["message"]]
        assert line["exception"].endswith("ProbeError: in the background")
    printed = wait_for(noisy, logger="stdout")
    assert (printed["message"], printed["level"]) == ("printed: access_token=***", "INFO")


@pytest.mark.parametrize(
    "command", [[*GUNICORN, *CONF, NOISY], [sys.executable, "-m", "sseflask", "serve"]]
)
def test_a_setting_that_is_wrong_is_said_in_json(command: list[str]) -> None:
    done = subprocess.run(
        command,
        env=environment(**JSON, SSEFLASK_HEARTBEAT="soon"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    record = json.loads(line)
    assert (record["level"], record["logger"]) == ("CRITICAL", "sseflask")
    assert record["message"].startswith("SSEFLASK_HEARTBEAT='soon' is not allowed")
