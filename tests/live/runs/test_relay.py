"""Completions relayed from a real upstream that others wrote: npm's aimock."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
from typing import Any
from urllib.parse import quote

import pytest

from tests.live.kit.aimock import Aimock
from tests.live.kit.clients import curl, open_stream
from tests.live.kit.connection import Connection, fetch
from tests.live.kit.events import Sent
from tests.live.kit.run_events import without_heartbeats
from tests.live.kit.servers import Server
from tests.live.kit.services import KEY
from tests.live.kit.waiting import until


def path(message: str, **parameters: str) -> str:
    query = "".join(f"&{name}={quote(value)}" for name, value in parameters.items())
    return f"/sse/openai_out?user_message={quote(message)}{query}"


def said(events: list[Sent]) -> str:
    """The text of a stream of chunks; its last event must be the end that OpenAI sends."""
    *chunks, done = [event.data or "" for event in events]
    assert done == "[DONE]"
    deltas = [choice["delta"] for chunk in chunks for choice in json.loads(chunk)["choices"]]
    return "".join(delta.get("content") or "" for delta in deltas)


def without_id(event: str) -> str:
    """An event's other lines; the id is its first one."""
    id, _, rest = event.partition("\n")
    assert re.fullmatch(r"id: [0-9a-f]{32}\.[0-9]+", id)
    return rest


def error_of(body: str | bytes | None) -> dict[str, Any]:
    error: dict[str, Any] = json.loads(body or b"")["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


@pytest.mark.parametrize("alias", ["openai_out", "async_openai_out"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_chunks_are_the_upstreams(relay: Server, upstream: Aimock, method: str, alias: str) -> None:
    with open_stream(relay, path("story").replace("openai_out", alias), method=method) as stream:
        assert stream.head.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert said(stream.rest()) == upstream.story


def test_chunks_are_the_upstreams_byte_for_byte(relay: Server, upstream: Aimock) -> None:
    """Both streams differ in their ids and times, and in nothing else but the events' ids."""
    asked = {"stream": True, "stream_options": {"include_usage": True}}
    body = json.dumps({**asked, "messages": [{"role": "user", "content": "story"}]})
    headers = {"Content-Type": "application/json"}
    straight = fetch(
        upstream.port, "/v1/chat/completions", method="POST", headers=headers, body=body.encode()
    )
    answer = fetch(relay, path("story", system_prompt=""), method="POST")
    relayed = without_heartbeats(answer.body)

    def without_what_varies(raw: bytes) -> list[dict[str, Any] | str]:
        blocks = raw.decode().split("\n\n")
        assert blocks.pop() == ""
        if raw is relayed:
            blocks = [without_id(block) for block in blocks]
        parsed: list[dict[str, Any] | str] = []
        for block in blocks:
            data = block.removeprefix("data: ")
            if data == "[DONE]":
                parsed.append(data)
                continue
            chunk = json.loads(data)
            assert json.dumps(chunk, separators=(",", ":"), ensure_ascii=False) == data
            parsed.append({k: v for k, v in chunk.items() if k not in ("id", "created", "model")})
        return parsed

    assert without_what_varies(relayed) == without_what_varies(straight.body)


def test_json_body_and_its_messages(relay: Server, upstream: Aimock) -> None:
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "story"}]
    body = json.dumps({"messages": messages, "model": "some-model"}).encode()
    headers = {"Content-Type": "application/json"}
    with open_stream(relay, "/sse/openai_out", method="POST", headers=headers, body=body) as stream:
        assert said(stream.rest()) == upstream.story
    asked = upstream.asked()[-1]
    assert (asked["messages"], asked["model"], asked["stream"]) == (messages, "some-model", True)


def test_text(relay: Server, upstream: Aimock) -> None:
    with open_stream(relay, path("story", format="text")) as stream:
        *pieces, done = stream.rest()
    assert {piece.event for piece in pieces} == {None}
    assert "".join(piece.data or "" for piece in pieces) == upstream.story
    assert len(pieces) > 5, "piece by piece"
    assert done.event == "done"
    assert json.loads(done.data or "") == {"finish_reason": "stop"}


def test_events_arrive_one_by_one(relay: Server, upstream: Aimock) -> None:
    """20 pieces a second for more than a minute: the first ones are there long before the end."""
    destroyed = upstream.destroyed()
    with open_stream(relay, path("slow story", format="text", on_disconnect="cancel")) as stream:
        pieces = "".join(piece or "" for piece in stream.data(5))
    assert pieces
    assert upstream.story.startswith(pieces)
    upstream.wait_for_destroyed(destroyed + 1)


@pytest.mark.parametrize("format", ["chunks", "text"])
@pytest.mark.parametrize(
    ("message", "status", "kind", "code"),
    [
        ("limit", 429, "rate_limit_error", "rate_limit_exceeded"),
        ("bad request", 400, "invalid_request_error", "model_not_found"),
        ("broken", 500, "server_error", None),
    ],
)
def test_errors_of_the_upstream_keep_status_and_shape(
    relay: Server, message: str, status: int, kind: str, code: str | None, format: str
) -> None:
    answer = fetch(relay, path(message, format=format))
    assert answer.status == status
    assert answer.headers["content-type"] == "application/json"
    error = error_of(answer.body)
    assert (error["type"], error["code"]) == (kind, code)
    if status == 429:
        assert error["message"] == "Rate limit reached"
        assert "retry-after" in answer.headers


def test_a_message_that_the_upstream_does_not_know(relay: Server) -> None:
    answer = fetch(relay, path("nobody has told it about this"))
    assert answer.status == 404
    assert error_of(answer.body)["message"]


def test_a_truncated_upstream_is_an_error_not_an_end(relay: Server, upstream: Aimock) -> None:
    with open_stream(relay, path("truncated")) as stream:
        *chunks, failure = stream.rest()
    assert chunks
    assert all("choices" in json.loads(chunk.data or "") for chunk in chunks)
    assert failure.event is None, "OpenAI's own shape: an error object as data"
    error_of(failure.data)

    with open_stream(relay, path("truncated", format="text")) as stream:
        *pieces, failure = stream.rest()
    assert upstream.story.startswith("".join(piece.data or "" for piece in pieces))
    assert failure.event == "failure"
    error_of(failure.data)


@pytest.mark.parametrize("format", ["chunks", "text"])
def test_an_upstream_cut_off_before_its_first_byte_is_an_http_error(
    relay: Server, format: str
) -> None:
    answer = fetch(relay, path("cut off", format=format))
    assert 500 <= answer.status < 600
    assert error_of(answer.body)["type"] == "server_error"


@pytest.mark.parametrize("format", ["chunks", "text"])
def test_leaving_before_the_first_token_cancels_the_upstream(
    relay: Server, upstream: Aimock, format: str
) -> None:
    """The upstream would be silent for a minute; the client has not even got the headers."""
    destroyed = upstream.destroyed()
    upstream.forget()
    with Connection(relay) as connection:
        connection.request(path("late", format=format, on_disconnect="cancel"))
        until(upstream.asked, "the upstream asked")
    upstream.wait_for_destroyed(destroyed + 1)


def test_leaving_after_the_headers_cancels_the_upstream(relay: Server, upstream: Aimock) -> None:
    destroyed = upstream.destroyed()
    with open_stream(relay, path("late", on_disconnect="cancel")) as stream:
        assert stream.next_comments(1) == ["ping"]
    upstream.wait_for_destroyed(destroyed + 1)


def test_leaving_in_mid_stream_cancels_the_upstream(relay: Server, upstream: Aimock) -> None:
    destroyed = upstream.destroyed()
    with open_stream(relay, path("slow story", on_disconnect="cancel")) as stream:
        assert stream.data(3)
    upstream.wait_for_destroyed(destroyed + 1)


def test_ten_leave_together(relay: Server, upstream: Aimock) -> None:
    destroyed = upstream.destroyed()
    with contextlib.ExitStack() as stack:
        asked = path("slow story", on_disconnect="cancel")
        streams = [stack.enter_context(open_stream(relay, asked)) for _ in range(10)]
        for stream in streams:
            assert stream.data(2)
    upstream.wait_for_destroyed(destroyed + 10)


def test_a_slow_first_token_is_waited_for(relay: Server, upstream: Aimock) -> None:
    with open_stream(relay, path("a little late")) as stream:
        assert stream.next_comments(1) == ["ping"], "headers, long before the first token"
        assert said(stream.rest()) == upstream.story


def test_head_and_prefetch_never_reach_the_upstream(relay: Server, upstream: Aimock) -> None:
    upstream.forget()
    with Connection(relay) as connection:
        connection.request(path("story"), method="HEAD", headers={"Connection": "close"})
        head = connection.head()
        assert (head.status, head.headers["content-type"]) == (
            200,
            "text/event-stream; charset=utf-8",
        )
        assert connection.at_end()
    for header, value in (
        ("Sec-Purpose", "prefetch"),
        ("Sec-Purpose", "prefetch;prerender"),
        ("Purpose", "prefetch"),
    ):
        answer = fetch_without_body(relay, path("story"), {header: value})
        assert answer == 204
    assert not upstream.asked()


def fetch_without_body(server: Server, target: str, headers: dict[str, str]) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    with contextlib.closing(connection):
        connection.request("GET", target, headers=headers)
        response = connection.getresponse()
        assert response.read() == b""
        return response.status


@pytest.mark.parametrize("format", ["chunks", "text"])
def test_the_key_is_never_shown(relay: Server, format: str) -> None:
    """Not even if the upstream repeats it."""
    answer = fetch(relay, path("key refused", format=format))
    assert answer.status >= 400
    error_of(answer.body)
    assert KEY not in answer.body.decode()
    assert KEY[10:] not in answer.body.decode()
    assert KEY not in str(answer.headers)
    assert KEY[10:] not in relay.log()


def test_curl(relay: Server, upstream: Aimock) -> None:
    done = curl(relay, "/sse/openai_out", "-X", "POST", "-d", "user_message=story&format=text")
    assert done.returncode == 0, done.stderr
    *pieces, end, rest = without_heartbeats(done.stdout.encode()).decode().split("\n\n")
    texts = [without_id(piece).removeprefix("data: ") for piece in pieces]
    assert "".join(texts) == upstream.story
    assert without_id(end).startswith("event: done\ndata: ")
    assert rest == ""
