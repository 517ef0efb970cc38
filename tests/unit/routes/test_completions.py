from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from sseflask.auth.tokens import sign
from sseflask.completions import demo
from sseflask.testing import open_stream
from tests.scripted_upstream import DONE, Exchange, Script, Upstream, frame, upstream
from tests.service import KEY, LOCAL, SECRET, service

ONE, LAST = frame("one\ntwo"), frame(finish="stop")
PATH = "/sse/openai_out"


def answer(exchange: Exchange) -> None:
    exchange.stream(ONE, LAST, DONE)


@contextmanager
def relay(
    script: Script = answer, *, development: bool = True, **settings: str
) -> Iterator[tuple[FlaskClient, Upstream]]:
    """The service in front of a scripted upstream; by default it trusts the test client."""
    with (
        upstream(script) as server,
        service(
            development=development,
            OPENAI_API_KEY=KEY,
            OPENAI_BASE_URL=server.url,
            SSEFLASK_SECRET=SECRET,
            **settings,
        ) as app,
    ):
        client = app.test_client()
        client.environ_base.update(LOCAL)
        yield client, server


@pytest.fixture
def shared() -> Iterator[tuple[FlaskClient, Upstream]]:
    with relay() as both:
        yield both


def without_ids(data: bytes) -> bytes:
    """What is sent, but for the ids: each run has its own."""
    return re.sub(rb"(?m)^id: [0-9a-f]{32}\.[0-9]+\n", b"", data)


def failed(response: TestResponse, status: int, code: str, param: str | None = None) -> str:
    assert response.status_code == status
    assert response.mimetype == "application/json"
    error = json.loads(response.data)["error"]
    assert (error["code"], error["param"]) == (code, param)
    message: str = error["message"]
    return message


@pytest.mark.parametrize("path", [PATH, "/sse/async_openai_out"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_chunks(shared: tuple[FlaskClient, Upstream], path: str, method: str) -> None:
    client, server = shared
    response = client.open(path, method=method)
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert without_ids(response.data) == ONE + LAST + DONE
    assert server.exchanges[-1].body == {
        "model": "gpt-5-mini",
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": "你好"},
        ],
    }


def test_text(shared: tuple[FlaskClient, Upstream]) -> None:
    response = shared[0].get(PATH, query_string={"format": "text"})
    assert without_ids(response.data) == (
        b'data: one\ndata: two\n\nevent: done\ndata: {"finish_reason":"stop"}\n\n'
    )


TALK = [{"role": "user", "content": "hi"}, {"role": "user", "content": [{"type": "text"}]}]

# Of useChat after a reasoning model, and after an answer that was stopped before its first token.
UI_TALK: list[Any] = [
    {"id": "1", "role": "user", "parts": [{"type": "text", "text": "2+2?"}]},
    {
        "id": "2",
        "role": "assistant",
        "parts": [{"type": "reasoning", "text": "T "}, {"type": "text", "text": "Four."}],
    },
    {"id": "3", "role": "assistant", "parts": [{"type": "step-start"}]},
    TALK[0],
]


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ({"user_message": "hi"}, [("system", "You are a helpful assistant."), ("user", "hi")]),
        ({"user_message": "", "system_prompt": "be"}, [("system", "be"), ("user", "")]),
        ({"system_prompt": ""}, [("user", "你好")]),
        ({"messages": TALK, "user_message": "no"}, TALK),
        ({"messages": json.dumps(TALK), "system_prompt": "no"}, TALK),
        ({"messages": UI_TALK}, [("user", "2+2?"), ("assistant", "Four."), TALK[0]]),
    ],
)
def test_what_is_asked(
    shared: tuple[FlaskClient, Upstream], asked: dict[str, Any], sent: list[Any]
) -> None:
    client, server = shared
    assert without_ids(client.post(PATH, json={**asked, "model": "m"}).data) == ONE + LAST + DONE
    expected = [
        {"role": each[0], "content": each[1]} if isinstance(each, tuple) else each for each in sent
    ]
    body = server.exchanges[-1].body
    assert (body["model"], body["messages"]) == ("m", expected)


LEAVING_NO_WAY = ["", "later", "-1", -0.1, "nan", "inf", "1_0", 86_401, True, None, [], "1e400"]


@pytest.mark.parametrize(
    ("param", "value"),
    [
        ("format", "html"),
        ("format", ""),
        *(("on_disconnect", value) for value in LEAVING_NO_WAY),
        ("heartbeat", "late"),
        ("last_event_id", 7),
        ("model", "m" * 257),
        ("model", 5),
        ("user_message", None),
        ("user_message", ["hi"]),
        ("user_message", "\ud800"),
        ("system_prompt", "\udfff"),
        ("messages", "hi"),
        ("messages", "[" * 10_000),
        ("messages", []),
        ("messages", {}),
        ("messages", ["hi"]),
        ("messages", [{"content": "hi"}]),
        ("messages", [{"role": 1}]),
        ("messages", [{"role": "user", "content": "\ud800"}]),
        ("messages", '[{"role": "user", "content": NaN}]'),
    ],
)
def test_a_bad_parameter(shared: tuple[FlaskClient, Upstream], param: str, value: object) -> None:
    client, server = shared
    failed(client.post(PATH, json={param: value}), 400, "invalid_value", param)
    assert not server.exchanges


@pytest.mark.parametrize(
    ("messages", "named"),
    [
        ([*UI_TALK, {"role": "user", "parts": [{"type": "video"}]}], "messages[4].parts[0]"),
        ([{"role": "tool", "parts": []}], "messages[0].role"),
        ([UI_TALK[2]], "messages"),
    ],
)
def test_a_message_that_can_not_be_sent(
    shared: tuple[FlaskClient, Upstream], messages: list[Any], named: str
) -> None:
    client, server = shared
    error_text = failed(client.post(PATH, json={"messages": messages}), 400, "invalid_value", named)
    assert named in error_text
    assert not server.exchanges


def test_what_is_allowed_is_named(shared: tuple[FlaskClient, Upstream]) -> None:
    get = shared[0].get
    message = failed(get(PATH, query_string={"format": "x"}), 400, "invalid_value", "format")
    assert "'chunks'" in message
    assert "'text'" in message
    response = get(PATH, query_string={"on_disconnect": "later"})
    assert "cancel, continue, or seconds" in failed(response, 400, "invalid_value", "on_disconnect")


def test_twice_the_same(shared: tuple[FlaskClient, Upstream]) -> None:
    response = shared[0].get(PATH, query_string="user_message=a&user_message=b")
    failed(response, 400, "duplicate_parameter", "user_message")


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Purpose": "prefetch"},
        {"Sec-Purpose": "prefetch;prerender"},
        {"Purpose": "prefetch"},
        {"Purpose": "Prefetch"},
    ],
)
def test_prefetch_never_calls_the_upstream(
    shared: tuple[FlaskClient, Upstream], headers: dict[str, str]
) -> None:
    client, server = shared
    response = client.get(PATH, headers=headers)
    assert (response.status_code, response.data) == (204, b"")
    assert response.headers["Cache-Control"] == "no-store"
    assert server.connections == 0


def test_head_never_calls_the_upstream(shared: tuple[FlaskClient, Upstream]) -> None:
    client, server = shared
    response = client.head(PATH)
    assert (response.status_code, response.data) == (200, b"")
    assert response.mimetype == "text/event-stream"
    assert server.connections == 0


def test_a_refusal_before_the_first_byte() -> None:
    error = {"message": "slow down", "type": "requests", "param": None, "code": "rate_limit"}

    def refuse(exchange: Exchange) -> None:
        body = json.dumps({"error": error}).encode()
        exchange.answer(429, body, "application/json", "Retry-After: 20", "X-Secret: no")

    with relay(refuse) as (client, _):
        for form in ("chunks", "text"):
            response = client.get(PATH, query_string={"format": form})
            assert failed(response, 429, "rate_limit") == "slow down"
            assert json.loads(response.data) == {"error": error}
            assert response.headers["Retry-After"] == "20"
            assert "X-Secret" not in response.headers


def broken(exchange: Exchange) -> None:
    exchange.stream(ONE)


TRUNCATED = {
    "message": "The upstream ended its stream before the answer was complete.",
    "type": "server_error",
    "param": None,
    "code": "upstream_truncated",
}


def test_a_truncated_upstream_is_reported_in_band() -> None:
    with relay(broken) as (client, _):
        response = client.get(PATH)
        assert response.status_code == 200
        data = without_ids(response.data)
        assert data.startswith(ONE + b'data: {"error"')
        assert data.count(b"\n\n") == 2
        error_text = data.removeprefix(ONE).removeprefix(b"data: ")
        assert json.loads(error_text) == {"error": TRUNCATED}
        with open_stream(client, PATH, query_string={"format": "text"}) as stream:
            text, failure = stream.events()
    assert (text.event, text.data) == ("message", "one\ntwo")
    assert failure.event == "failure"
    assert json.loads(failure.data) == {"error": TRUNCATED}


def test_an_error_inside_the_stream_is_passed_on() -> None:
    error = b'data: {"error": {"message": "overloaded",  "x": 1}}\n\n'
    with relay(lambda x: x.stream(ONE, error, DONE)) as (client, _):
        response = client.get(PATH)
        error_text = without_ids(response.data).removeprefix(ONE).removeprefix(b"data: ")
        assert json.loads(error_text)["error"] == {
            "message": "overloaded",
            "type": "server_error",
            "param": None,
            "code": None,
            "x": 1,
        }


def test_a_dead_upstream() -> None:
    with upstream(answer) as server:
        pass
    with service(development=True, OPENAI_BASE_URL=server.url) as app:
        client = app.test_client()
        client.environ_base.update(LOCAL)
        failed(client.get(PATH), 502, "upstream_unreachable")


def test_leaving_cancels_the_upstream() -> None:
    left = threading.Event()

    def script(exchange: Exchange) -> None:
        exchange.begin()
        for _ in range(1000):
            try:
                exchange.chunk(ONE)
            except OSError:
                left.set()
                return
            if left.wait(0.01):
                return

    with relay(script) as (client, _):
        query = {"on_disconnect": "cancel"}
        with open_stream(client, PATH, query_string=query) as stream:
            assert stream.read(1)[0].data.startswith('{"id"')
            assert not left.is_set()
        assert left.wait(10)


def test_a_real_upstream_needs_a_token() -> None:
    with relay(development=False) as (client, server):
        failed(client.get(PATH), 401, "token_missing")
        assert client.head(PATH).status_code == 401
        bad = sign(SECRET, "alice", time.time() + 60)
        failed(client.get(PATH, query_string={"access_token": bad}), 403, "right_missing")
        assert server.connections == 0
        good = sign(SECRET, "alice", time.time() + 60, complete=True)
        headers = {"Authorization": f"Bearer {good}"}
        assert without_ids(client.post(PATH, headers=headers).data) == ONE + LAST + DONE


def test_another_site_may_not_spend() -> None:
    with relay() as (client, server):
        headers = {"Origin": "https://example.org", "Sec-Fetch-Site": "cross-site"}
        failed(client.post(PATH, headers=headers), 403, "cross_site")
        assert server.connections == 0


@pytest.mark.parametrize("form", ["chunks", "text"])
def test_a_stream_ends_when_its_token_does(form: str) -> None:
    over = threading.Event()

    def script(exchange: Exchange) -> None:
        exchange.begin()
        exchange.chunk(ONE)
        over.wait()  # silent from here on

    with relay(script, development=False, SSEFLASK_UPSTREAM_TIMEOUT="3") as (client, _):
        token = sign(SECRET, "alice", time.time() + 2, complete=True)
        query = {"access_token": token, "format": form}
        try:
            with open_stream(client, PATH, query_string=query) as stream:
                events = list(stream.events())
        finally:
            over.set()
    assert json.loads(events[-1].data)["error"]["code"] == "token_expired"
    assert events[-1].event == ("message" if form == "chunks" else "failure")


def test_the_demo_model_is_open_to_all() -> None:
    with service() as app, mock.patch.object(demo, "PAUSE", 0):
        client = app.test_client()
        client.environ_base.update({"REMOTE_ADDR": "192.0.2.7", "HTTP_HOST": "example.org"})
        query = {"user_message": "Grüße", "format": "text"}
        with open_stream(client, PATH, query_string=query) as stream:
            events = list(stream.events())
    said = "".join(event.data for event in events[:-1])
    assert "demo model" in said
    assert said.endswith("Grüße")
    assert (events[-1].event, events[-1].data) == ("done", '{"finish_reason":"stop"}')
