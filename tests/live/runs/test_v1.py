"""OpenAI's endpoints with plain HTTP: everything passes untouched, and gains what runs have."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.live.kit.clients import Stream, open_stream
from tests.live.kit.connection import Answer, Connection
from tests.live.kit.publishing import error_of
from tests.live.kit.run_events import FORMATS, after, end_of, expected_end, number, parsed, text_of
from tests.live.kit.runs import JSON, ask, attach, raw, replay, rest, run_of, stop
from tests.live.kit.scripted import MODELS, ScriptedAnswer, ScriptedUpstream
from tests.live.kit.servers import Server
from tests.live.kit.services import KEY
from tests.live.kit.waiting import until
from tests.scripted_upstream import frame

CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"
BOTH = pytest.mark.parametrize("route", [CHAT, RESPONSES])
COMPLETION = (
    b'{ "id": "chatcmpl-9",\n  "choices":[{"message":{"content":"\\u4f60 \xe5\xa5\xbd"}}]}\n'
)


def body_of(script: ScriptedAnswer, **fields: Any) -> bytes:
    messages = [{"role": "user", "content": script.message}]
    return json.dumps({"model": "m", "messages": messages, **fields}).encode()


def chat(
    server: Server | Connection, script: ScriptedAnswer, query: str = "", **fields: Any
) -> Stream:
    return open_stream(
        server,
        CHAT + query,
        method="POST",
        headers=JSON,
        body=body_of(script, stream=True, **fields),
    )


def ask_chat(server: Server, script: ScriptedAnswer, query: str = "", **fields: Any) -> Answer:
    return ask(server, CHAT + query, "POST", JSON, body_of(script, **fields))


@BOTH
@pytest.mark.parametrize("stream", [True, False])
def test_the_body_is_passed_on_untouched(
    runs: Server, script: ScriptedAnswer, route: str, stream: bool
) -> None:
    """Byte for byte: spaces, order, escapes, numbers, unknown names, even twice."""
    if stream:
        script.say("x")
        script.finish()
    else:
        script.answer(200, COMPLETION)
    body = (
        b' { "stream" :%s, "messages":[{"role":"user","content":"%s \\u00e9 \xc3\xa9"}],\r\n'
        b'"input":"x", "future_parameter" : {"a":1.0,"b":1e3,"c":12345678901234567890},\t'
        b'"temperature":0.70, "n": 1, "n": 1, "stream_options" : {"include_usage":false}, '
        b'"format":"xml", "on_disconnect":"nonsense", "idempotency_key":7,"model":"m"}\n'
    ) % (b"true" if stream else b"false", script.message.encode())
    answer = ask(runs, route, "POST", {"Content-Type": "application/json"}, body)
    assert answer.status == 200
    assert run_of(answer)
    (asked,) = script.requests
    assert asked.content == body
    assert asked.line == f"POST {route} HTTP/1.1"
    assert asked.headers["content-type"].startswith("application/json")
    assert asked.headers["authorization"] == f"Bearer {KEY}"


def test_a_stream_is_the_upstreams_bytes_with_ids(runs: Server, script: ScriptedAnswer) -> None:
    frames = [frame("one"), b'data:  {"choices" :[],"x":1.0}\n\n', frame("\U0001f30a")]
    script.send(*frames)
    script.finish()
    stream = chat(runs, script)
    assert stream.head.status == 200
    assert stream.head.headers["content-type"].startswith("text/event-stream")
    run = run_of(stream)
    body = raw(stream)
    for n, sent in enumerate(frames, 1):
        block, _, body = body.partition(b"\n\n")
        id_line = b"id: %s.%d\n" % (run.encode(), n)
        assert (block + b"\n\n").replace(id_line, b"") == sent
        assert id_line in block
    assert body.endswith(b"data: [DONE]\n\n")
    assert b"event:" not in body


@BOTH
def test_without_a_stream(runs: Server, script: ScriptedAnswer, route: str) -> None:
    """The upstream's JSON, byte for byte; `stream` may be false or left out."""
    script.answer(200, COMPLETION)
    for fields in ({}, {"stream": False}, {"stream": None}):
        body = body_of(script, input=script.message, **fields)
        answer = ask(runs, route, "POST", JSON, body)
        assert (answer.status, answer.body) == (200, COMPLETION)
        assert answer.headers["content-type"].startswith("application/json")
        assert run_of(answer)
    assert script.count == 3


def test_models(runs: Server, scripted: ScriptedUpstream) -> None:
    before = len(scripted.models)
    answer = ask(runs, "/v1/models")
    assert (answer.status, answer.body) == (200, MODELS)
    assert answer.headers["content-type"].startswith("application/json")
    (asked,) = scripted.models[before:]
    assert asked.headers["authorization"] == f"Bearer {KEY}"


def test_methods(runs: Server) -> None:
    for path, method in ((CHAT, "GET"), (RESPONSES, "GET"), ("/v1/models", "POST")):
        error_of(ask(runs, path, method), 405)
    error_of(ask(runs, "/v1/nothing"), 404)


@BOTH
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("status", [400, 402, 403, 404, 422, 429, 500, 503])
def test_errors_keep_status_and_shape(
    runs: Server, script: ScriptedAnswer, status: int, stream: bool, route: str
) -> None:
    error = {"message": "No.", "type": "some_error", "param": "model", "code": "some_code"}
    script.answer(status, json.dumps({"error": error}).encode(), "Retry-After: 3")
    answer = ask(runs, route, "POST", JSON, body_of(script, input="x", stream=stream))
    assert (answer.status, json.loads(answer.body)) == (status, {"error": error})
    assert answer.headers["content-type"].startswith("application/json")
    if status == 429:
        assert answer.headers["retry-after"] == "3"
    again = ask(runs, f"/runs/{run_of(answer)}")
    assert (again.status, json.loads(again.body)) == (status, {"error": error})
    assert script.count == 1


@BOTH
@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b'"text"', b"null", b"\xff", b"[" * 40_000])
def test_bodies_that_are_no_json_object(runs: Server, route: str, body: bytes) -> None:
    answer = ask(runs, route, "POST", JSON, body)
    assert error_of(answer, 400)["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("on_disconnect=soon", "on_disconnect"),
        ("on_disconnect=-1", "on_disconnect"),
        ("heartbeat=late", "heartbeat"),
        ("idempotency_key=two%20words", None),
    ],
)
def test_parameters_in_the_query(
    runs: Server, script: ScriptedAnswer, query: str, param: str | None
) -> None:
    error = error_of(ask_chat(runs, script, f"?{query}", stream=True), 400)
    assert param is None or error["param"] == param
    assert script.count == 0


@pytest.mark.parametrize("format", FORMATS)
def test_resumed_at_the_run(runs: Server, script: ScriptedAnswer, format: str) -> None:
    """In every format, while it goes on and afterwards."""
    script.say("one ", "two ")
    with chat(runs, script) as stream:
        run = run_of(stream)
        assert stream.next().id == f"{run}.1"
    viewer = attach(runs, run, format, f"{run}.1")
    script.say("three")
    script.finish()
    events = rest(viewer)
    complete = replay(runs, run, format)
    assert events == (complete if format == "ui" else after(run, complete, 1))
    assert text_of(format, complete) == "one two three"
    assert end_of(format, complete) == expected_end(format, "stop")
    last = complete[-1].id
    assert ask(runs, f"/runs/{run}?format={format}&last_event_id={last}").status == 204
    assert script.count == 1


def test_stopped(runs: Server, script: ScriptedAnswer) -> None:
    script.say("one")
    with chat(runs, script) as stream:
        run = run_of(stream)
        stream.next()
        assert stop(runs, run) == "stopped"
        script.wait_until_left()
        (end,) = rest(stream)
    error = parsed(end)["error"]
    assert (error["type"], error["code"], end.event) == ("run_stopped", "stopped", None)


def test_stopped_before_the_first_token(runs: Server, script: ScriptedAnswer) -> None:
    with chat(runs, script, "?heartbeat=early") as stream:
        run = run_of(stream)
        script.wait_for_requests()
        assert stop(runs, run) == "stopped"
        script.wait_until_left()
        assert end_of("chunks", rest(stream)) == "error:stopped"


@pytest.mark.parametrize("stream", [True, False])
def test_leaving_cancels_it(runs: Server, script: ScriptedAnswer, stream: bool) -> None:
    if stream:
        script.say("one")
    with Connection(runs) as connection:
        body = body_of(script, stream=stream)
        connection.request(CHAT + "?on_disconnect=cancel", method="POST", headers=JSON, body=body)
        script.wait_for_requests()
        assert not script.left()
    script.wait_until_left()


@pytest.mark.parametrize("stream", [True, False])
def test_leaving_does_not_cancel_it(runs: Server, script: ScriptedAnswer, stream: bool) -> None:
    """With `continue` it goes on; a repetition of the request gets its answer."""
    query = f"?on_disconnect=continue&idempotency_key=key-{script.message}"
    with Connection(runs) as connection:
        body = body_of(script, stream=stream)
        connection.request(CHAT + query, method="POST", headers=JSON, body=body)
        script.wait_for_requests()
    begun = time.monotonic()
    until(lambda: script.left() or time.monotonic() > begun + 1.5, "a while has passed")
    assert not script.left()
    if stream:
        script.say("one")
        script.finish()
    else:
        script.answer(200, COMPLETION)
    again = open_stream(runs, CHAT + query, method="POST", headers=JSON, body=body)
    assert again.head.headers["idempotency-replayed"] == "true"
    if stream:
        assert text_of("chunks", rest(again)) == "one"
    else:
        assert again.connection.body(again.head) == COMPLETION
        again.connection.close()
    assert script.count == 1


@BOTH
def test_idempotency_without_a_stream(runs: Server, script: ScriptedAnswer, route: str) -> None:
    script.answer(200, COMPLETION)
    headers = {**JSON, "Idempotency-Key": f"key-{script.message}"}
    body = body_of(script, input="x")
    first, again = (ask(runs, route, "POST", headers, body) for _ in range(2))
    assert first.body == again.body == COMPLETION
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert run_of(first) == run_of(again)
    other = ask(runs, route, "POST", headers, body_of(script, input="y"))
    assert error_of(other, 409)["code"] == "idempotency_key_reused"
    assert script.count == 1


def test_idempotency_of_a_stream(runs: Server, script: ScriptedAnswer) -> None:
    """Whether it is streamed is content: the two answers have nothing in common."""
    script.say("one")
    script.finish()
    query = f"?idempotency_key=key-{script.message}"
    first, again = chat(runs, script, query), chat(runs, script, query)
    run = run_of(first)
    assert run_of(again) == run
    assert raw(first) == raw(again)
    assert number(run, replay(runs, run, "text")[-1]) == 4
    refused = ask_chat(runs, script, query, stream=False)
    assert error_of(refused, 409)["code"] == "idempotency_key_reused"
    assert script.count == 1


def test_a_truncated_upstream(runs: Server, script: ScriptedAnswer) -> None:
    script.say("one")
    script.end()
    events = rest(chat(runs, script))
    assert end_of("chunks", events) == "error:upstream_truncated"


def test_heartbeats(runs: Server, script: ScriptedAnswer) -> None:
    script.begin()
    with chat(runs, script) as stream:
        assert stream.next_comments(3) == ["ping"] * 3
        script.say("one")
        script.finish()
        assert text_of("chunks", rest(stream)) == "one"


@BOTH
def test_heads_early(runs: Server, script: ScriptedAnswer, route: str) -> None:
    """Headers before the upstream has said anything; its refusal is then in band."""
    body = body_of(script, input="x", stream=True)
    with open_stream(
        runs, f"{route}?heartbeat=early", method="POST", headers=JSON, body=body
    ) as stream:
        assert stream.head.status == 200
        assert stream.next_comments(2) == ["ping", "ping"]
        error = {"message": "No.", "type": "some_error", "param": None, "code": "some_code"}
        script.answer(400, json.dumps({"error": error}).encode())
        (end,) = rest(stream)
    assert "some_code" in (end.data or "")
    assert end.event == ("error" if route == RESPONSES else None)
