"""What makes no sense is refused with one clear message, and the upstream never hears of it."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.live.kit.connection import Answer
from tests.live.kit.publishing import error_of
from tests.live.kit.runs import JSON, NO_RUN, START, ask, path_of, rest, run_of, start
from tests.live.kit.scripted import ScriptedAnswer
from tests.live.kit.servers import Server

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
MALFORMED = [
    ("on_disconnect", "-1"),
    ("on_disconnect", "nan"),
    ("on_disconnect", "inf"),
    ("on_disconnect", "1e9"),
    ("on_disconnect", "86401"),
    ("on_disconnect", "soon"),
    ("on_disconnect", "Cancel"),
    ("on_disconnect", "1_0"),
    ("on_disconnect", "30s"),
    ("on_disconnect", "\u0663"),
    ("on_disconnect", ""),
    ("format", "xml"),
    ("format", "TEXT"),
    ("format", ""),
    ("heartbeat", "late"),
    ("heartbeat", ""),
    ("heartbeat", "1"),
    ("messages", "hello"),
    ("messages", "[]"),
    ("messages", '[{"content": "no role"}]'),
    ("messages", "[5]"),
    ("model", "x" * 300),
]
OF_OTHER_TYPES: list[tuple[str, Any]] = [
    ("on_disconnect", -1),
    ("on_disconnect", 86401),
    ("on_disconnect", 1e9),
    ("on_disconnect", True),
    ("on_disconnect", ["cancel"]),
    ("on_disconnect", {}),
    ("format", 5),
    ("format", ["text"]),
    ("heartbeat", True),
    ("heartbeat", 15),
    ("idempotency_key", 7),
    ("idempotency_key", ["k"]),
    ("user_message", 5),
    ("user_message", "\ud800"),
    ("system_prompt", {}),
    ("model", 5),
    ("messages", {}),
    ("messages", [{"role": 5}]),
    ("last_event_id", 5),
    ("last_event_id", "nonsense"),
]


def assert_refused(answer: Answer, name: str, status: int = 400) -> None:
    error = error_of(answer, status)
    assert error["type"] == "invalid_request_error"
    assert error["param"] == name
    assert name in error["message"]
    assert "Traceback" not in error["message"]
    assert "pydantic" not in answer.body.decode()


@pytest.mark.parametrize(("name", "value"), MALFORMED, ids=lambda value: value[:12])
@pytest.mark.parametrize("how", ["query", "form", "json"])
def test_parameters(runs: Server, script: ScriptedAnswer, how: str, name: str, value: str) -> None:
    asked = {"user_message": script.message, name: value}
    if how == "query":
        answer = ask(runs, path_of(START, **asked))
    elif how == "form":
        answer = ask(runs, START, "POST", FORM, urlencode(asked).encode())
    else:
        answer = ask(runs, START, "POST", JSON, json.dumps(asked).encode())
    assert_refused(answer, name)
    assert script.count == 0


@pytest.mark.parametrize(("name", "value"), OF_OTHER_TYPES, ids=str)
def test_parameters_of_other_types(
    runs: Server, script: ScriptedAnswer, name: str, value: Any
) -> None:
    body = json.dumps({"user_message": script.message, name: value}).encode()
    assert_refused(ask(runs, START, "POST", JSON, body), name)
    assert script.count == 0


@pytest.mark.parametrize("value", ["0", "1", "86400", "cancel", "continue", 0, 30, 86400])
def test_what_on_disconnect_may_be(runs: Server, script: ScriptedAnswer, value: Any) -> None:
    script.say("x")
    script.finish()
    stream = start(runs, script, on_disconnect=value)
    assert stream.head.status == 200
    rest(stream)


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'{"user_message": }',
        b"[1, 2]",
        b'"text"',
        b"null",
        b"7",
        b"\xff\xfe{}",
        b'{"user_message": "\xff"}',
        b"{'user_message': 1}",
        b'{"on_disconnect": NaN}',
        b"[" * 40_000,
        b'{"a":' * 50_000,
    ],
    ids=lambda body: repr(body[:12]),
)
def test_bodies_that_are_no_json_object(runs: Server, script: ScriptedAnswer, body: bytes) -> None:
    path = path_of(START, user_message=script.message)
    answer = ask(runs, path, "POST", JSON, body)
    assert error_of(answer, 400)["type"] == "invalid_request_error"
    assert script.count == 0


@pytest.mark.parametrize("route", [START, "/v1/chat/completions", "/v1/responses"])
def test_a_huge_body(runs: Server, script: ScriptedAnswer, route: str) -> None:
    filling = "x" * 14_000_000
    body = json.dumps({"model": "m", "user_message": script.message, "x": filling}).encode()
    error_of(ask(runs, route, "POST", JSON, body), 413)
    assert script.count == 0


VIEWS = [
    ("format", "xml"),
    ("format", ""),
    ("last_event_id", "nonsense"),
    ("last_event_id", f"{NO_RUN}.x"),
]


@pytest.mark.parametrize(("name", "value"), VIEWS)
def test_parameters_of_a_view(runs: Server, script: ScriptedAnswer, name: str, value: str) -> None:
    script.say("x")
    script.finish()
    with start(runs, script) as stream:
        run = run_of(stream)
        answer = ask(runs, path_of(f"/runs/{run}", **{name: value}))
        assert_refused(answer, name)


def test_nothing_of_it_is_a_traceback(runs: Server, script: ScriptedAnswer) -> None:
    for name, value in MALFORMED[:3]:
        ask(runs, path_of(START, user_message=script.message, **{name: value}))
    ask(runs, "/runs/%00%ff", "DELETE")
    assert "Traceback" not in runs.log()
