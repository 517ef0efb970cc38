from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sseflask.completions.dialects import CHAT, RESPONSES
from sseflask.completions.parts import Part, Reader, Reasoning, Text, ToolCall, pieces
from tests.completions.scripted import event


def chunk(finish: str | None = None, usage: Any = None, **delta: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return f"data: {json.dumps({'choices': [choice], 'usage': usage})}\n\n".encode()


def delta_event(kind: str, delta: Any, output_index: Any = 0) -> bytes:
    return event(f"response.{kind}.delta", delta=delta, output_index=output_index)


def read(*frames: bytes, dialect: str = CHAT) -> list[Part]:
    reader = Reader(dialect)
    return [part for frame in frames for part in reader.take(frame)] + reader.rest()


def test_text_and_reasoning_in_both_spellings() -> None:
    assert read(
        chunk(role="assistant", content=""),
        chunk(reasoning_content="hm"),
        chunk(reasoning="so"),
        chunk(reasoning="", reasoning_content=None, content=None),
        chunk(content="yes", reasoning="ah"),
        chunk("stop", refusal="no"),
        b'data: {"choices": [], "usage": {"total_tokens": 7}}\n\n',
    ) == [Reasoning("hm"), Reasoning("so"), Reasoning("ah"), Text("yes"), Text("no")]


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
    ]


def test_a_response() -> None:
    call = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": ""}
    assert read(
        event("response.created", response={}),
        delta_event("reasoning_summary_text", "hm"),
        delta_event("reasoning_text", "so"),
        event("response.output_item.added", item={"type": "message"}, output_index=1),
        delta_event("output_text", "yes"),
        delta_event("output_text", ""),
        delta_event("refusal", "no"),
        event("response.output_text.done", text="yes"),
        event("response.output_item.added", item=call, output_index=2),
        delta_event("function_call_arguments", "{}", 2),
        event("response.output_item.added", item={**call, "call_id": None}, output_index=3),
        b'event: response.output_text.delta\ndata: {"delta": "untyped"}\n\n',
        b'data: {"type": "response.output_text.delta", "delta": "unnamed"}\n\n',
        event("response.audio.delta", delta="x"),
        dialect=RESPONSES,
    ) == [
        Reasoning("hm"),
        Reasoning("so"),
        Text("yes"),
        Text("no"),
        ToolCall(2, "c1", "f", ""),
        ToolCall(2, "", "", "{}"),
        ToolCall(3, "fc_1", "f", ""),
        Text("untyped"),
        Text("unnamed"),
    ]


HALVES = [
    (["a\ud83d", "\ude00b"], "a😀b"),
    (["\ud83d", "", "\ude00"], "😀"),
    (["\ud83d", "\ude00\ud83d", "\ude01"], "😀😁"),
    (["😀", "你"], "😀你"),
    (["a\ud83d", "b"], "a\ufffdb"),
    (["a", "\ude00b"], "a\ufffdb"),
    (["a\ud83db"], "a\ufffdb"),
    (["\ud83d", "\ud83d", "\ude00"], "\ufffd😀"),
    (["a\ud83d"], "a\ufffd"),
]
SPELLINGS: list[tuple[str, Any]] = [
    (CHAT, lambda half: chunk(content=half)),
    (CHAT, lambda half: chunk(reasoning=half)),
    (CHAT, lambda half: chunk(tool_calls=[{"index": 1, "function": {"arguments": half}}])),
]


@pytest.mark.parametrize(("halves", "text"), HALVES, ids=ascii)
@pytest.mark.parametrize(("dialect", "spell"), SPELLINGS, ids=["text", "reasoning", "arguments"])
def test_letters_cut_between_pieces(dialect: str, spell: Any, halves: list[str], text: str) -> None:
    parts = read(*map(spell, halves), dialect=dialect)
    said = [part.arguments if isinstance(part, ToolCall) else part.text for part in parts]
    assert "".join(said) == text
    assert all(said), "no part is empty"


@pytest.mark.parametrize(("halves", "text"), HALVES, ids=ascii)
def test_letters_cut_in_a_response(halves: list[str], text: str) -> None:
    frames = [
        f"event: response.output_text.delta\ndata: {json.dumps({'delta': half})}\n\n".encode()
        for half in halves
    ]
    parts = read(*frames, dialect=RESPONSES)
    assert "".join(part.text for part in parts if isinstance(part, Text)) == text


def test_a_name_that_no_text_can_carry() -> None:
    call = {"index": 0, "id": "\ud83c", "function": {"name": "\udf0a", "arguments": "{}"}}
    assert read(chunk(tool_calls=[call])) == [ToolCall(0, "\ufffd", "\ufffd", "{}")]


def test_other_choices_and_events_with_a_type_are_left_out() -> None:
    other = b'data: {"choices": [{"index": 1, "delta": {"content": "no"}}]}\n\n'
    named = b"event: other\n" + chunk(content="no")
    assert read(other, b"event: keepalive\ndata: {}\n\n", named, chunk(content="x")) == [Text("x")]
    assert list(pieces(CHAT, other)) == [(1, Text("no"))]


@pytest.mark.parametrize(
    "frame",
    [b"data: no JSON\n\n", b"data: 5\n\n", b"data: [" + b"[" * 100_000 + b"\n\n", b"\n", b"",
     b'data: {"choices": 5}\n\n', b'data: {"choices": [5, {"delta": 5}]}\n\n',
     chunk(content=5), chunk(content=["x"]), chunk(reasoning={}), chunk(tool_calls=5),
     chunk(tool_calls=[5, {"index": "x"}, {"function": 5}, {"id": 5}, {"function": {"name": 5}}]),
     event("response.output_item.added", item=5), event("response.output_text.delta", delta=5)],
    ids=lambda frame: repr(frame[:40]),
)  # fmt: skip
@pytest.mark.parametrize("dialect", [CHAT, RESPONSES])
def test_what_can_not_be_read_is_left_out(frame: bytes, dialect: str) -> None:
    good = chunk(content="x") if dialect == CHAT else delta_event("output_text", "x")
    assert read(frame, good, frame, dialect=dialect) == [Text("x")]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2)
    | st.dictionaries(
        st.sampled_from(
            ["choices", "delta", "content", "reasoning", "tool_calls", "function", "arguments",
             "index", "id", "name", "type", "item", "output_index", "usage", "response"]
        ),
        inner | st.sampled_from(["response.output_text.delta", "function_call"]),
        max_size=4,
    ),
    max_leaves=20,
)  # fmt: skip


@given(st.lists(json_values, max_size=3), st.sampled_from([CHAT, RESPONSES]))
def test_any_json_can_be_read(values: list[Any], dialect: str) -> None:
    for part in read(*(b"data: %b\n\n" % json.dumps(v).encode() for v in values), dialect=dialect):
        text = part.arguments if isinstance(part, ToolCall) else part.text
        text.encode()
