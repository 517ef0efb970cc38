"""Pictures: in a prompt, and in an answer, where one event has all of it."""

from __future__ import annotations

import json
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.live.kit.connection import Connection, fetch
from tests.live.kit.publishing import error_of
from tests.live.kit.runs import JSON, attach, rest, run_of, run_service, start
from tests.live.kit.scripted import ScriptedAnswer, ScriptedUpstream
from tests.live.kit.servers import Server
from tests.live.kit.services import authorization
from tests.live.kit.tools import node
from tests.scripted_upstream import event, frame

#: As base64: of a photograph of 5 MB.
PICTURE = random.Random(1).randbytes(3_333_334).hex()
URL = f"data:image/png;base64,{PICTURE}"


def picture_frame() -> bytes:
    """Two of them: more than sockets take, and than a client may be behind."""
    images = [{"image_url": {"url": URL}}] * 2
    return frame(choices=[{"index": 0, "delta": {"images": images}}])


def test_one_that_is_asked_about(runs: Server, script: ScriptedAnswer, access_token: str) -> None:
    script.say("A cat.")
    script.finish()
    asked: Any = [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": script.message},
                {"type": "image_url", "image_url": {"url": URL}},
            ],
        }
    ]
    with openai.OpenAI(base_url=f"{runs.url}/v1", api_key=access_token, max_retries=0) as client:
        chunks = list(client.chat.completions.create(model="m", messages=asked, stream=True))
    assert (
        "".join(each.choices[0].delta.content or "" for each in chunks if each.choices) == "A cat."
    )
    parts = [
        {"type": "text", "text": script.message},
        {"type": "file", "mediaType": "image/png", "url": URL},
    ]
    body = {"messages": [{"role": "user", "parts": parts}], "format": "text"}
    answer = fetch(
        runs,
        "/sse/openai_out",
        method="POST",
        headers={**JSON, **authorization(access_token)},
        body=json.dumps(body).encode(),
    )
    assert answer.status == 200
    assert [each.body["messages"] for each in script.requests] == [asked, asked]


def test_one_in_an_answer(tmp_path: Path, scripted: ScriptedUpstream) -> None:
    """Viewers wait for it without a greenlet, one of them slowly, and none is cut."""
    script = scripted.script()
    script.say("See ")
    # Who takes nothing for two heartbeats is cut: on a busy machine these readers may pause.
    settings = {"SSEFLASK_HEARTBEAT": "10"}
    with (
        run_service(tmp_path, scripted, settings=settings) as server,
        start(server, script) as first,
    ):
        run = run_of(first)
        assert first.next().id == f"{run}.1"
        with attach(Connection(server, 4096), run) as slow, attach(server, run) as other:
            assert slow.next().id == other.next().id == f"{run}.1"
            script.send(picture_frame())
            script.say("there")
            script.finish()
            with ThreadPoolExecutor(3) as pool:
                read = list(pool.map(rest, (first, other, slow)))
            for events in read:
                assert f"data: {events[0].data}\n\n".encode() == picture_frame()
                assert [each.id for each in events] == [f"{run}.{n}" for n in range(2, 7)]
                assert events[-1].data == "[DONE]"


def test_the_ai_sdk_shows_what_is_no_text(
    runs: Server, script: ScriptedAnswer, access_token: str
) -> None:
    cited = {"type": "url_citation", "url_citation": {"url": "https://h/1", "title": "One"}}
    picture = {"image_url": {"url": "data:image/png;base64,iVBO"}}
    delta = {"content": "See", "annotations": [cited], "images": [picture]}
    script.send(frame(choices=[{"index": 0, "delta": delta}]))
    script.finish()
    answer = node("ai.mjs", f"{runs.url}/sse/openai_out?format=ui", script.message, access_token)
    printed = json.loads(answer.stdout)
    assert printed["failure"] is None
    found = {part["type"]: part for part in printed["message"]["parts"]}
    assert found["text"]["text"] == "See"
    assert found["file"]["url"] == picture["image_url"]["url"]
    assert (found["source-url"]["url"], found["source-url"]["title"]) == ("https://h/1", "One")


def test_the_ai_sdk_asks_for_an_approval(
    runs: Server, script: ScriptedAnswer, access_token: str
) -> None:
    item = {"type": "mcp_approval_request", "id": "r", "name": "roll", "arguments": '{"n": 2}'}
    script.send(
        event("response.output_item.done", item=item, output_index=0),
        event("response.completed", response={"output": [item]}),
    )
    script.end()
    headers = {**JSON, **authorization(access_token)}
    body = json.dumps({"model": "m", "input": script.message, "stream": True}).encode()
    begun = fetch(runs, "/v1/responses", method="POST", headers=headers, body=body)
    config = {"url": runs.url, "token": access_token, "run": begun.headers["x-run-id"], "resume": 1}
    printed = json.loads(node("chat.mjs", json.dumps(config)).stdout)
    assert printed["status"] == "ready"
    (part,) = [each for each in printed["messages"][0]["parts"] if each["type"] == "dynamic-tool"]
    assert (part["toolName"], part["input"]) == ("mcp.roll", {"n": 2})
    assert (part["state"], part["approval"]) == ("approval-requested", {"id": "r"})


@pytest.mark.parametrize("route", ["/v1/chat/completions", "/sse/openai_out"])
def test_a_stranger_sends_none(guarded_runs: Server, route: str) -> None:
    """A client without the right is refused before its body is read."""
    with Connection(guarded_runs) as connection:
        connection.socket.sendall(
            f"POST {route} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
            "Content-Length: 20000000\r\n\r\n{".encode()
        )
        assert connection.head().status == 401


@pytest.mark.parametrize("route", ["/session", "/sse/v1"])
def test_other_routes_take_none(runs: Server, access_token: str, route: str) -> None:
    headers = {**JSON, **authorization(access_token)}
    body = b'{"data": "' + b"x" * 2_000_000 + b'"}'
    error_of(fetch(runs, route, method="POST", headers=headers, body=body), 413)
