"""Requests and settings that make no sense: one clear message, no traceback, nothing half done."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.kit.connection import Answer, Connection, fetch
from tests.live.kit.servers import GUNICORN, ROOT, Server, environment, free_port

JSON = {"Content-Type": "application/json"}


#: Gets how, the settings, and a file for the output: the exit status and the output.
Starts = Callable[[str, dict[str, str], Path], tuple[int, str]]


@pytest.fixture(scope="module")
def starts() -> Iterator[Starts]:
    """Starts the service in one way or the other, and waits until it has ended."""
    commands = {
        "serve": ["sseflask", "serve", "--dev"],
        "production": ["gunicorn", *GUNICORN[3:], "wsgi:app", "-c", "sseflask/gunicorn_conf.py"],
    }
    with subprocess.Popen(
        [sys.executable, "-m", "tests.live.kit.starts"],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        requests, answers = process.stdin, process.stdout

        def start(how: str, settings: dict[str, str], output: Path) -> tuple[int, str]:
            module, *arguments = commands[how]
            requests.write(
                json.dumps([module, arguments, environment(**settings), str(output)]) + "\n"
            )
            return int(answers.readline()), output.read_text().strip()

        yield start
        requests.close()


def message(answer: Answer) -> dict[str, Any]:
    assert 400 <= answer.status < 500, answer
    assert answer.headers["content-type"] == "application/json"
    error: dict[str, Any] = json.loads(answer.body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert error["message"]
    assert "Traceback" not in error["message"]
    assert "pydantic" not in answer.body.decode()
    return error


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("count", "-1"),
        ("count", "abc"),
        ("count", ""),
        ("count", "1.5"),
        ("count", "1e3"),
        ("count", "1_000"),
        ("count", "%2B5"),
        ("count", "%D9%A3"),
        ("count", "9" * 400),
        ("interval", "1e9"),
        ("interval", "-0.1"),
        ("interval", "nan"),
        ("interval", "inf"),
        ("interval", "abc"),
        ("interval", "1_0"),
    ],
)
@pytest.mark.parametrize("how", ["query", "form", "json"])
def test_counter(development: Server, name: str, value: str, how: str) -> None:
    if how == "query":
        answer = fetch(development, f"/sse/v1?{name}={value}")
    elif how == "form":
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        body = f"{name}={value}".encode()
        answer = fetch(development, "/sse/v1", method="POST", headers=kind, body=body)
    else:
        body = json.dumps({name: value}).encode()
        answer = fetch(development, "/sse/v1", method="POST", headers=JSON, body=body)
    assert answer.status == 400
    assert message(answer)["param"] == name
    assert name in message(answer)["message"]


@pytest.mark.parametrize("route", ["/sse/v1", "/sse/openai_out"])
@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'{"count": }',
        b"[1, 2]",
        b'"text"',
        b"null",
        b"\xff\xfe{}",
        b"{'count': 1}",
        b"[" * 40_000,
    ],
    ids=lambda body: repr(body[:12]),
)
def test_malformed_json(development: Server, route: str, body: bytes) -> None:
    answer = fetch(development, route, method="POST", headers=JSON, body=body)
    assert answer.status == 400
    message(answer)


@pytest.mark.parametrize(
    ("parameters", "culprit"),
    [
        ({"format": "xml"}, "format"),
        ({"format": ""}, "format"),
        ({"format": 5}, "format"),
        ({"on_disconnect": "explode"}, "on_disconnect"),
        ({"messages": "hello"}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [5]}, "messages"),
        ({"messages": [{"content": "no role"}]}, "messages"),
        ({"user_message": 5}, "user_message"),
        ({"user_message": ["a"]}, "user_message"),
        ({"user_message": "\ud800"}, "user_message"),
        ({"model": {}}, "model"),
    ],
    ids=str,
)
def test_completion(development: Server, parameters: dict[str, Any], culprit: str) -> None:
    body = json.dumps(parameters).encode()
    answer = fetch(development, "/sse/openai_out", method="POST", headers=JSON, body=body)
    assert answer.status == 400
    assert message(answer)["param"] == culprit


def test_an_unknown_format_in_the_query(development: Server) -> None:
    answer = fetch(development, "/sse/openai_out?format=nonsense")
    assert answer.status == 400
    error = message(answer)
    assert error["param"] == "format"
    assert "chunks" in error["message"]
    assert "text" in error["message"], "it says what is allowed"


@pytest.mark.parametrize("route", ["/sse/v1", "/sse/openai_out"])
@pytest.mark.parametrize("in_chunks", [False, True], ids=["length", "chunked"])
def test_a_body_over_the_limit(development: Server, route: str, in_chunks: bool) -> None:
    size = 3_000_000
    with Connection(development) as connection:
        if in_chunks:
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (size, b"x" * size)
            headers = {**JSON, "Transfer-Encoding": "chunked"}
        else:
            body, headers = b"x" * size, JSON
        connection.request(route, method="POST", headers=headers, body=body)
        head = connection.head()
        answer = Answer(head.status, head.headers, connection.body(head))
    assert answer.status == 413
    message(answer)


@pytest.mark.parametrize("cursor", ["abc", "-1", "1.5", "1_0", "9" * 400])
def test_a_cursor_that_is_none(development: Server, cursor: str) -> None:
    message(fetch(development, "/sse/v1", headers={"Last-Event-ID": cursor}))
    message(fetch(development, f"/sse/v1?last_event_id={cursor}"))


def test_unknown_routes_and_methods(development: Server) -> None:
    answer = fetch(development, "/nowhere")
    assert answer.status == 404
    assert set(json.loads(answer.body)) == {"error"}
    answer = fetch(development, "/sse/v1", method="DELETE")
    assert answer.status == 405
    assert set(json.loads(answer.body)) == {"error"}
    assert "POST" in answer.headers["allow"]


def test_the_log_has_no_traceback_of_bad_input(development: Server) -> None:
    fetch(development, "/sse/v1?count=abc")
    fetch(development, "/sse/v1", method="POST", headers=JSON, body=b"{")
    assert "Traceback" not in development.log()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SSEFLASK_HEARTBEAT", "abc"),
        ("SSEFLASK_HEARTBEAT", "0"),
        ("SSEFLASK_HEARTBEAT", "-5"),
        ("SSEFLASK_HEARTBEAT", "nan"),
        ("SSEFLASK_FIRST_BYTE", "soon"),
        ("SSEFLASK_LIFETIME", "-1"),
        ("SSEFLASK_SECRET", "too short"),
        ("SSEFLASK_TRUSTED_PROXIES", "many"),
        ("PORT", "http"),
        ("PORT", "99999"),
        ("WEB_CONCURRENCY", "0"),
        ("OPENAI_BASE_URL", "not a url"),
        ("SSEFLASK_MAX_PROMPT", "-1"),
        ("SSEFLASK_MAX_PROMPT", "much"),
        ("SSEFLASK_RATE_LIMIT", "often"),
        ("SSEFLASK_RATE_LIMIT", "-5/minute"),
        ("SSEFLASK_MAX_RUNS", "-1"),
        ("SSEFLASK_MAX_RUNS", "1.5"),
        ("SSEFLASK_RUN_SECONDS", "-1"),
        ("SSEFLASK_RUN_SECONDS", "nan"),
        ("SSEFLASK_RUN_SECONDS", "a day"),
    ],
)
@pytest.mark.parametrize("how", ["serve", "production"])
def test_a_bad_setting_stops_the_start_with_one_line(
    starts: Starts, tmp_path: Path, how: str, name: str, value: str
) -> None:
    status, said = starts(how, {"PORT": str(free_port()), name: value}, tmp_path / "output")
    assert status != 0
    assert "Traceback" not in said
    assert name in said
    assert len(said.splitlines()) == 1, said
    if name == "SSEFLASK_SECRET":
        assert value not in said
