from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from sseflask.completions.parts import Finish, Part, Reasoning, Text, ToolCall, Usage, parts
from sseflask.completions.ui import ui_events, ui_failure
from sseflask.completions.upstream import DONE
from sseflask.errors import Failure


def chunk(finish: str | None = None, usage: Any = None, **delta: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return f"data: {json.dumps({'choices': [choice], 'usage': usage})}\n\n".encode()


def frames(*those: bytes) -> Any:
    return (frame for frame in (*those, DONE))


def read(*those: bytes) -> list[Part]:
    return list(parts(frames(*those)))


def test_text_reasoning_usage_and_the_end() -> None:
    assert read(
        chunk(role="assistant", content=""),
        chunk(reasoning_content="hm"),
        chunk(reasoning="so"),
        chunk(content="yes"),
        chunk("stop"),
        b'data: {"choices": [], "usage": {"total_tokens": 7}}\n\n',
    ) == [Reasoning("hm"), Reasoning("so"), Text("yes"), Usage({"total_tokens": 7}), Finish("stop")]


def test_tool_calls_in_pieces() -> None:
    first = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}
    more = {"index": 0, "function": {"arguments": '{"a":'}}
    other = {"index": 1, "id": "c2", "function": {"name": "g", "arguments": "{}"}}
    last = {"index": 0, "function": {"arguments": "1}"}}
    assert read(
        chunk(tool_calls=[first]),
        chunk(tool_calls=[more, other]),
        chunk("tool_calls", tool_calls=[last]),
    ) == [
        ToolCall(0, "c1", "f", ""),
        ToolCall(0, "", "", '{"a":'),
        ToolCall(1, "c2", "g", "{}"),
        ToolCall(0, "", "", "1}"),
        Finish("tool_calls"),
    ]


@pytest.mark.parametrize("key", ["content", "reasoning", "reasoning_content"])
def test_letters_cut_between_pieces(key: str) -> None:
    pieces = [
        f'data: {{"choices": [{{"delta": {{"{key}": "{half}"}}}}]}}\n\n'.encode()
        for half in ("a\\ud83c", "\\udf0a b", "\\ud83c")
    ]
    texts = [part.text for part in read(*pieces) if isinstance(part, (Text, Reasoning))]
    assert "".join(texts) == "a🌊 b\ufffd"


def test_other_choices_and_events_with_a_type_are_left_out() -> None:
    other = b'data: {"choices": [{"index": 1, "delta": {"content": "no"}}]}\n\n'
    assert read(other, b"event: keepalive\ndata: {}\n\n", chunk(content="x")) == [
        Text("x"),
        Finish(None),
    ]


@pytest.mark.parametrize(
    "frame",
    [b"data: no JSON\n\n", b"data: 5\n\n", b'data: {"choices": [{"delta": {"content": 5}}]}\n\n',
     b'data: {"choices": 5}\n\n', b'data: {"choices": [{"delta": {"tool_calls": [5]}}]}\n\n',
     b'data: {"choices": [{"delta": {"tool_calls": [{"index": "x"}]}}]}\n\n'],
)  # fmt: skip
def test_what_is_no_chunk_is_a_failure(frame: bytes) -> None:
    with pytest.raises(Failure):
        read(frame)


def ui(*those: bytes) -> list[Any]:
    events = [event.data or "" for event in ui_events(frames(*those))]
    assert events[-1] == "[DONE]"
    return [json.loads(event) for event in events[:-1]]


def test_a_ui_message_from_its_start_to_its_end() -> None:
    start, *rest = ui(
        chunk(reasoning="hm"),
        chunk(content="a"),
        chunk(content="b"),
        chunk(
            tool_calls=[{"index": 0, "id": "c", "function": {"name": "f", "arguments": '{"x":1}'}}]
        ),
        chunk("tool_calls", usage={"total_tokens": 3}),
    )
    assert start["type"] == "start"
    assert start["messageId"]
    assert rest == [
        {"type": "start-step"},
        {"type": "reasoning-start", "id": "reasoning-1"},
        {"type": "reasoning-delta", "id": "reasoning-1", "delta": "hm"},
        {"type": "reasoning-end", "id": "reasoning-1"},
        {"type": "text-start", "id": "text-2"},
        {"type": "text-delta", "id": "text-2", "delta": "a"},
        {"type": "text-delta", "id": "text-2", "delta": "b"},
        {"type": "text-end", "id": "text-2"},
        {"type": "tool-input-start", "toolCallId": "c", "toolName": "f"},
        {"type": "tool-input-delta", "toolCallId": "c", "inputTextDelta": '{"x":1}'},
        {"type": "tool-input-available", "toolCallId": "c", "toolName": "f", "input": {"x": 1}},
        {"type": "finish-step"},
        {
            "type": "finish",
            "finishReason": "tool-calls",
            "messageMetadata": {"usage": {"total_tokens": 3}},
        },
    ]


@pytest.mark.parametrize(
    ("reason", "told"),
    [("stop", "stop"), ("length", "length"), ("content_filter", "content-filter"), (None, "other"),
     ("new one", "other")],
)  # fmt: skip
def test_why_it_ends(reason: str | None, told: str) -> None:
    assert ui(chunk(reason, content="x"))[-1] == {"type": "finish", "finishReason": told}


def test_arguments_that_are_no_json() -> None:
    call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": "{"}}
    errors = [each for each in ui(chunk(tool_calls=[call])) if each["type"] == "tool-input-error"]
    assert [error["input"] for error in errors] == ["{"]


def test_a_failure_in_a_ui_message() -> None:
    event = ui_failure(Failure("it broke"))
    assert json.loads(event.data or "") == {"type": "error", "errorText": "it broke"}


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


@given(st.lists(deltas, max_size=8))
def test_blocks_are_opened_before_and_closed_after_their_deltas(
    those: list[dict[str, Any]],
) -> None:
    opened: set[str] = set()
    seen: set[str] = set()
    text = ""
    for each in ui(*(chunk(**delta) for delta in those)):
        kind, _, what = each["type"].partition("-")
        if kind in ("text", "reasoning"):
            id = each["id"]
            if what == "start":
                assert id not in seen
                assert not opened, "one at a time"
                opened.add(id)
                seen.add(id)
            elif what == "end":
                opened.remove(id)
            else:
                assert id in opened
                text += each["delta"] if kind == "text" else ""
        elif what == "input-delta":
            assert each["toolCallId"] in seen
        elif what == "input-start":
            seen.add(each["toolCallId"])
    assert not opened
    assert text == "".join(_said(those))


def _said(those: list[dict[str, Any]]) -> Iterator[str]:
    for delta in those:
        said = delta.get("content") or ""
        yield said.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
