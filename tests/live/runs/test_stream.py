"""A completion is a run: how it is started, what each format makes of it, its events' ids."""

from __future__ import annotations

import itertools
import json
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.live.kit.clients import Stream, open_stream
from tests.live.kit.events import Sent
from tests.live.kit.run_events import FORMATS, RESUMABLE, end_of, frames_of, number, parsed, text_of
from tests.live.kit.runs import JSON, START, ask, path_of, raw, replay, rest, run_of, start
from tests.live.kit.scripted import USAGE, ScriptedAnswer, usage_frame
from tests.live.kit.servers import Server
from tests.live.kit.subscribers import EVENT_SOURCE
from tests.scripted_upstream import DONE, frame

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
ALIAS = "/sse/async_openai_out"


@pytest.mark.parametrize("how", ["GET", "POST", "form", "json", "alias", "alias json"])
def test_started_in_every_way(runs: Server, script: ScriptedAnswer, how: str) -> None:
    script.say("Hello", " 你好")
    script.finish()
    asked = {"user_message": script.message, "system_prompt": "Be brief.", "model": "some-model"}
    path = ALIAS if "alias" in how else START
    if how in ("GET", "POST", "alias"):
        stream = open_stream(
            runs, path_of(path, **asked), method="POST" if how == "POST" else "GET"
        )
    elif how == "form":
        stream = open_stream(
            runs, path, method="POST", headers=FORM, body=urlencode(asked).encode()
        )
    else:
        stream = open_stream(
            runs, path, method="POST", headers=JSON, body=json.dumps(asked).encode()
        )
    assert stream.head.status == 200
    assert stream.head.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert stream.head.headers["cache-control"] == "no-store, no-transform"
    run = run_of(stream)
    events = rest(stream)
    assert text_of("chunks", events) == "Hello 你好"
    assert [number(run, event) for event in events] == [1, 2, 3, 4, 5]
    assert events[-1].data == "[DONE]"
    (got,) = script.requests
    body = got.body
    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": script.message},
    ]
    assert (body["model"], body["stream"]) == ("some-model", True)
    assert body["stream_options"] == {"include_usage": True}


def test_each_run_has_an_id_of_its_own(runs: Server, script: ScriptedAnswer) -> None:
    script.say("x")
    script.finish()
    found = set()
    for _ in range(5):
        with start(runs, script) as stream:
            found.add(run_of(stream))
    assert len(found) == 5
    assert script.count == 5, "without a key each request is a run"


def test_chunks_are_the_upstreams_bytes_with_ids(runs: Server, script: ScriptedAnswer) -> None:
    """Whatever spacing and escapes it uses, and wherever its pieces are cut."""
    frames = [
        frame("one"),
        b'data:  {"choices" :[{"delta":{"content":"\\u4f60 \xe5\xa5\xbd"}}] , "x":1.0}\n\n',
        b'data: {"choices":[{"index":0,"delta":{"content":"\xf0\x9f\x8c\x8a"}}],"pad":"a"}\n\n',
        frame("x" * 200_000),
        frame(finish="stop"),
        usage_frame(USAGE),
        DONE,
    ]
    wire = b"".join(frames)
    cuts = [*range(0, 500, 7), *range(500, len(wire), 9_973), len(wire)]
    script.send(*(wire[a:b] for a, b in itertools.pairwise(cuts)))
    script.end()
    stream = start(runs, script)
    run = run_of(stream)
    body = raw(stream)
    blocks = [block + b"\n\n" for block in body.split(b"\n\n")[:-1]]
    assert len(blocks) == len(frames)
    for n, (block, sent) in enumerate(zip(blocks, frames, strict=True), 1):
        id_line = b"id: %s.%d\n" % (run.encode(), n)
        assert block.count(id_line) == 1, block[:200]
        assert block.replace(id_line, b"") == sent


def answer_with_everything(script: ScriptedAnswer) -> None:
    """Ten frames: reasoning in both spellings, text, a tool call in two pieces, usage."""

    def delta(**fields: Any) -> bytes:
        return frame(choices=[{"index": 0, "delta": fields, "finish_reason": None}])

    call = {"index": 0, "id": "call-7", "function": {"name": "look", "arguments": ""}}
    more = {"index": 0, "function": {"arguments": '{"a": 1}'}}
    script.send(
        delta(role="assistant", content=""),
        delta(reasoning_content="Let me "),
        delta(reasoning="think."),
        delta(reasoning="Last thought.", content="First word"),
        delta(content=" 你好\nand a line"),
        delta(tool_calls=[call]),
        delta(tool_calls=[more]),
    )
    script.finish("tool_calls")


def test_text(runs: Server, script: ScriptedAnswer) -> None:
    answer_with_everything(script)
    stream = start(runs, script, format="text")
    run = run_of(stream)
    assert rest(stream) == [
        Sent("First word", None, f"{run}.4"),
        Sent(" 你好\nand a line", None, f"{run}.5"),
        Sent('{"finish_reason":"tool_calls"}', "done", f"{run}.10"),
    ]


def test_events(runs: Server, script: ScriptedAnswer) -> None:
    """One frame is reasoning and text: two events, the last of which has its id."""
    answer_with_everything(script)
    stream = start(runs, script, format="events")
    run = run_of(stream)
    call = {"index": 0, "id": "call-7", "name": "look", "arguments": '{"a": 1}'}
    events = rest(stream)
    assert [(event.event, parsed(event), event.id) for event in events] == [
        ("reasoning", {"text": "Let me "}, f"{run}.2"),
        ("reasoning", {"text": "think."}, f"{run}.3"),
        ("reasoning", {"text": "Last thought."}, None),
        ("text", {"text": "First word"}, f"{run}.4"),
        ("text", {"text": " 你好\nand a line"}, f"{run}.5"),
        ("tool_call", call, f"{run}.7"),
        ("usage", USAGE, None),
        ("done", {"finish_reason": "tool_calls"}, f"{run}.10"),
    ]


def test_ui(runs: Server, script: ScriptedAnswer) -> None:
    answer_with_everything(script)
    stream = start(runs, script, format="ui")
    assert stream.head.headers["x-vercel-ai-ui-message-stream"] == "v1"
    run = run_of(stream)
    events = rest(stream)
    assert end_of("ui", events) == "tool-calls"
    assert text_of("ui", events) == "First word 你好\nand a line"
    types = [parsed(event)["type"] for event in events[:-1]]
    assert types[:2] == ["start", "start-step"]
    assert types[-2:] == ["finish-step", "finish"]
    ids = [number(run, event) for event in events if event.id]
    assert ids == sorted(set(ids)), "each frame's id once, in order"
    assert ids[-1] == 10
    assert {event.event for event in events} == {None}
    assert frames_of(run, events)


@pytest.mark.parametrize("usage", [USAGE, None], ids=["told", "not told"])
def test_usage_of_a_finished_answer(
    runs: Server, script: ScriptedAnswer, usage: dict[str, Any] | None
) -> None:
    """The upstream's own figures; if it gives none, what was streamed, marked as partial."""
    script.send(frame("a"), frame("b"))
    script.send(frame(choices=[{"index": 0, "delta": {"reasoning": "c"}, "finish_reason": None}]))
    script.finish(usage=usage)
    stream = start(runs, script, format="events")
    *_, usage_event, done = rest(stream)
    assert usage_event.event == "usage"
    assert parsed(usage_event) == (usage or {"completion_tokens": 3, "partial": True})
    assert (done.event, parsed(done)) == ("done", {"finish_reason": "stop"})


@pytest.mark.parametrize("format", FORMATS)
def test_an_answer_without_a_word(runs: Server, script: ScriptedAnswer, format: str) -> None:
    """Every format has an end, and the end an id."""
    script.finish(usage=None)
    events = rest(start(runs, script, format=format))
    assert end_of(format, events) == ("[DONE]" if format == "chunks" else "stop")
    assert text_of(format, events) == ""


@pytest.mark.parametrize("format", RESUMABLE)
def test_ids_of_the_upstreams_own_do_not_confuse(
    runs: Server, script: ScriptedAnswer, format: str
) -> None:
    """The id that a client takes over is ours, whatever the upstream numbers its events with."""
    script.send(b"id: 77\n" + frame("a"), frame("b").replace(b"\n\n", b"\nid: 78\n\n"))
    script.finish(usage=None)
    stream = start(runs, script, format=format)
    run = run_of(stream)
    events = rest(stream)
    assert [number(run, event) for event in events if event.id][-1] == 4
    assert "77" not in {event.id for event in events}
    assert text_of(format, events) == "ab"


def first_block(stream: Stream) -> bytes:
    """What comes before the first blank line."""
    body = b""
    for piece in stream.connection.pieces(stream.head):
        body += piece
        if b"\n\n" in body:
            return body.partition(b"\n\n")[0]
    raise AssertionError(f"the stream ends after {body!r}")


@pytest.mark.parametrize("format", RESUMABLE)
def test_an_event_source_can_resume_before_the_first_token(
    runs: Server, script: ScriptedAnswer, format: str
) -> None:
    script.begin()
    path = path_of(START, user_message=script.message, format=format)
    with open_stream(runs, path, headers=EVENT_SOURCE) as stream:
        run = run_of(stream)
        block = first_block(stream)
    lines = [line for line in block.split(b"\n") if not line.startswith((b":", b"retry:"))]
    assert lines == [b"id: %s.0" % run.encode()]
    with open_stream(runs, path, headers={**EVENT_SOURCE, "Last-Event-ID": f"{run}.0"}) as stream:
        assert run_of(stream) == run
        script.say("first")
        script.finish()
        events = [event for event in stream.rest() if event.data is not None]
    assert text_of(format, events) == "first"
    assert [event.id for event in events] == [event.id for event in replay(runs, run, format)]
    assert script.count == 1


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Accept": "*/*", "Cache-Control": "no-cache"},
        {"Accept": "text/event-stream"},
        {"Accept": "text/event-stream, application/json", "Cache-Control": "no-cache"},
    ],
    ids=str,
)
def test_others_get_no_block_without_data(
    runs: Server, script: ScriptedAnswer, headers: dict[str, str]
) -> None:
    """Some clients take one for an event, and choke on it."""
    script.say("first")
    script.finish()
    path = path_of(START, user_message=script.message)
    events = rest(open_stream(runs, path, headers=headers))
    assert all(event.data for event in events)
    assert (events[0].id or "").endswith(".1")


def test_an_event_source_that_comes_back_is_not_set_back(
    runs: Server, script: ScriptedAnswer
) -> None:
    """An id before the one that it has would make it lose its place."""
    script.say("one", "two", "three")
    script.finish()
    stream = start(runs, script)
    run = run_of(stream)
    rest(stream)
    path = path_of(START, user_message=script.message)
    headers = {**EVENT_SOURCE, "Last-Event-ID": f"{run}.2"}
    events = rest(open_stream(runs, path, headers=headers))
    ids = [number(run, event) for event in events if event.id]
    assert min(ids) >= 2
    assert [number(run, event) for event in events if event.data] == [3, 4, 5, 6]


def test_head_and_prefetch_start_nothing(runs: Server, script: ScriptedAnswer) -> None:
    path = path_of(START, user_message=script.message, idempotency_key=script.message)
    answer = ask(runs, path, "HEAD")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert "x-run-id" not in answer.headers
    for header in ({"Sec-Purpose": "prefetch"}, {"Sec-Purpose": "prefetch;prerender"}):
        answer = ask(runs, path, headers=header)
        assert (answer.status, answer.body) == (204, b"")
        assert "x-run-id" not in answer.headers
    assert script.count == 0
    script.say("x")
    script.finish()
    with open_stream(runs, path) as stream:
        assert "idempotency-replayed" not in stream.head.headers, "the key had not been claimed"
    assert script.count == 1
