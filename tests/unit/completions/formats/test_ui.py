from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sseflask.completions.completion_outcome import CompletionOutcome
from sseflask.completions.dialects import CHAT, RESPONSES
from sseflask.completions.formats.ui import Messages
from sseflask.errors import Failure
from sseflask.wire import Decoder
from tests.scripted_upstream import event

DONE = CompletionOutcome("finished", "stop")


def chunk(**delta: Any) -> bytes:
    return f"data: {json.dumps({'choices': [{'index': 0, 'delta': delta}]})}\n\n".encode()


def call(id: str | None, name: str | None, arguments: str, index: int = 0) -> dict[str, Any]:
    return {"index": index, "id": id, "function": {"name": name, "arguments": arguments}}


def ui(outcome: CompletionOutcome, *frames: bytes, dialect: str = CHAT) -> list[Any]:
    view = Messages("run", dialect)
    sent = b"".join(view.take(number, frame) for number, frame in enumerate(frames, 1))
    events = Decoder().feed(sent + view.end(len(frames) + 1, outcome))
    assert events[-1].data == "[DONE]"
    assert events[-1].last_event_id == f"run.{len(frames) + 1}"
    start, step, *chunks = [json.loads(event.data) for event in events[:-1]]
    assert start == {"type": "start", "messageId": "msg-run"}
    assert step == {"type": "start-step"}
    return chunks


def test_files_sources_and_approvals() -> None:
    """Each where it belongs: a picture between two texts, a source amid one."""
    cited = {"type": "url_citation", "url_citation": {"url": "https://h/1"}}
    assert ui(
        DONE,
        chunk(content="a", annotations=[cited]),
        chunk(content="b", images=[{"image_url": {"url": "data:image/gif;base64,R0"}}]),
        chunk(content="c"),
    )[:-2] == [
        {"type": "text-start", "id": "text-1"},
        {"type": "text-delta", "id": "text-1", "delta": "a"},
        {
            "type": "source-url",
            "sourceId": "source-1",
            "title": "https://h/1",
            "url": "https://h/1",
        },
        {"type": "text-delta", "id": "text-1", "delta": "b"},
        {"type": "text-end", "id": "text-1"},
        {"type": "file", "url": "data:image/gif;base64,R0", "mediaType": "image/gif"},
        {"type": "text-start", "id": "text-2"},
        {"type": "text-delta", "id": "text-2", "delta": "c"},
        {"type": "text-end", "id": "text-2"},
    ]
    item = {"type": "mcp_approval_request", "id": "r", "name": "roll", "arguments": '{"n": 2}'}
    frame = event("response.output_item.done", item=item, output_index=0)
    call = {"toolCallId": "r", "providerExecuted": True, "dynamic": True}
    assert ui(DONE, frame, dialect=RESPONSES)[:-2] == [
        {"type": "tool-input-available", **call, "toolName": "mcp.roll", "input": {"n": 2}},
        {"type": "tool-approval-request", "approvalId": "r", "toolCallId": "r"},
    ]


def test_a_message_starts_with_its_first_frame() -> None:
    view = Messages("run", CHAT)
    assert view.take(1, chunk(role="assistant")) == (
        b'data: {"type":"start","messageId":"msg-run"}\n\n'
        b'id: run.1\ndata: {"type":"start-step"}\n\n'
    )
    assert view.take(2, chunk(content="")) == b""


def test_a_message_from_its_start_to_its_end() -> None:
    assert ui(
        CompletionOutcome("finished", "tool_calls", usage={"total_tokens": 3}),
        chunk(reasoning="hm"),
        chunk(content="a"),
        chunk(content="b"),
        chunk(tool_calls=[call("c", "f", '{"x"')]),
        chunk(tool_calls=[call(None, None, ":1}")]),
    ) == [
        {"type": "reasoning-start", "id": "reasoning-1"},
        {"type": "reasoning-delta", "id": "reasoning-1", "delta": "hm"},
        {"type": "reasoning-end", "id": "reasoning-1"},
        {"type": "text-start", "id": "text-2"},
        {"type": "text-delta", "id": "text-2", "delta": "a"},
        {"type": "text-delta", "id": "text-2", "delta": "b"},
        {"type": "text-end", "id": "text-2"},
        {"type": "tool-input-start", "toolCallId": "c", "toolName": "f"},
        {"type": "tool-input-delta", "toolCallId": "c", "inputTextDelta": '{"x"'},
        {"type": "tool-input-delta", "toolCallId": "c", "inputTextDelta": ":1}"},
        {"type": "tool-input-available", "toolCallId": "c", "toolName": "f", "input": {"x": 1}},
        {"type": "finish-step"},
        {
            "type": "finish",
            "finishReason": "tool-calls",
            "messageMetadata": {"usage": {"total_tokens": 3}},
        },
    ]


def test_a_response() -> None:
    item = {"type": "function_call", "call_id": "c", "name": "f"}
    *_, start, delta, available, _, _ = ui(
        DONE,
        event("response.created", response={}),
        event("response.output_text.delta", delta="a"),
        event("response.output_item.added", item=item, output_index=1),
        event("response.function_call_arguments.delta", delta="{}", output_index=1),
        dialect=RESPONSES,
    )
    assert start == {"type": "tool-input-start", "toolCallId": "c", "toolName": "f"}
    assert delta == {"type": "tool-input-delta", "toolCallId": "c", "inputTextDelta": "{}"}
    assert available["input"] == {}


def test_a_call_that_the_upstream_has_made() -> None:
    item = {"type": "mcp_call", "id": "m", "name": "f", "arguments": '{"a":1}', "output": "o"}
    made = {"toolCallId": "m", "providerExecuted": True, "dynamic": True}
    assert ui(DONE, event("response.output_item.done", item=item), dialect=RESPONSES)[:2] == [
        {"type": "tool-input-available", **made, "toolName": "mcp.f", "input": {"a": 1}},
        {"type": "tool-output-available", **made, "output": {"output": "o"}},
    ]


def test_no_two_calls_have_one_id() -> None:
    calls = [call(None, "f", "{}"), call(None, "g", "{}", 1), call("c", "h", "{}", 2)]
    same = [call("c", "i", "{}", 3)]
    told = ui(DONE, chunk(tool_calls=calls), chunk(tool_calls=same))
    ids = {each["toolCallId"] for each in told if each["type"] == "tool-input-available"}
    assert ids == {"call-run-0", "call-run-1", "c", "c-run-3"}


@pytest.mark.parametrize(
    ("reason", "told"),
    [("stop", "stop"), ("length", "length"), ("content_filter", "content-filter"), (None, "other"),
     ("tool_calls", "tool-calls"), ("new one", "other")],
)  # fmt: skip
def test_why_it_ends(reason: str | None, told: str) -> None:
    chunks = ui(CompletionOutcome("finished", reason), chunk(content="x"))
    assert chunks[-2:] == [{"type": "finish-step"}, {"type": "finish", "finishReason": told}]


@pytest.mark.parametrize(
    "arguments", ["{", "[1", "NaN", "1e999", "[" * 100_000, '{"a": -Infinity}']
)
def test_arguments_that_are_no_json(arguments: str) -> None:
    chunks = ui(DONE, chunk(tool_calls=[call("c", "f", arguments)]))
    assert [each["input"] for each in chunks if each["type"] == "tool-input-error"] == [arguments]


ENDS = [
    (CompletionOutcome("stopped"), {"type": "abort", "reason": "stopped"}),
    (CompletionOutcome("cancelled"), {"type": "abort", "reason": "cancelled"}),
    (CompletionOutcome.failed(Failure("it broke")), {"type": "error", "errorText": "it broke"}),
    (CompletionOutcome("failed"), {"type": "error", "errorText": "The run failed on the server."}),
]


@pytest.mark.parametrize(("outcome", "last"), ENDS)
def test_an_answer_that_is_not_complete(outcome: CompletionOutcome, last: dict[str, str]) -> None:
    assert ui(outcome) == [last]
    assert ui(outcome, chunk(content="a"))[2:] == [{"type": "text-end", "id": "text-1"}, last]
    # Complete JSON or not: no client may make this call, or wait for it.
    assert ui(outcome, chunk(tool_calls=[call("c", "f", "{}")]))[2:] == [
        {
            "type": "tool-input-error",
            "toolCallId": "c",
            "toolName": "f",
            "input": "{}",
            "errorText": "The answer ended before this call was complete.",
        },
        last,
    ]


deltas = st.fixed_dictionaries(
    {},
    optional={
        "content": st.none() | st.text(max_size=3),
        "reasoning": st.none() | st.text(max_size=3),
        "tool_calls": st.lists(
            st.fixed_dictionaries(
                {"index": st.integers(0, 2)},
                optional={
                    "id": st.text(max_size=2),
                    "function": st.fixed_dictionaries({"arguments": st.text(max_size=3)}),
                },
            ),
            max_size=2,
        ),
    },
)


@given(st.lists(deltas, max_size=8), st.sampled_from([DONE, *(outcome for outcome, _ in ENDS)]))
def test_blocks_are_opened_before_and_closed_after_their_deltas(
    those: list[dict[str, Any]], outcome: CompletionOutcome
) -> None:
    opened: set[str] = set()
    blocks: set[str] = set()
    calls: set[str] = set()
    open_calls: set[str] = set()
    text = ""
    for each in ui(outcome, *(chunk(**delta) for delta in those)):
        kind, _, what = each["type"].partition("-")
        if kind in ("text", "reasoning"):
            id = each["id"]
            if what == "start":
                assert id not in blocks
                assert not opened, "one at a time"
                opened.add(id)
                blocks.add(id)
            elif what == "end":
                opened.remove(id)
            else:
                assert id in opened
                text += each["delta"] if kind == "text" else ""
        elif kind == "tool":
            assert not opened
            id = each["toolCallId"]
            if what == "input-start":
                calls.add(id)
                open_calls.add(id)
            elif what == "input-delta":
                assert id in open_calls
            else:
                assert id in calls
                open_calls.discard(id)
                assert outcome is DONE or what == "input-error"
    assert not opened
    assert not open_calls
    assert text == "".join(delta.get("content") or "" for delta in those)
