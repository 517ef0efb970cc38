from __future__ import annotations

import json
from typing import Any

import pytest

from sseflask.completions.dialects import CHAT, RESPONSES
from sseflask.completions.usage import usage_of
from tests.completions.scripted import event, frame


def with_usage(usage: Any) -> bytes:
    return b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\n"


def delta(**more: Any) -> bytes:
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": more}]}).encode() + b"\n\n"


def test_what_the_upstream_says_at_last() -> None:
    frames = [with_usage({"n": 1}), frame("a", usage={"n": 2}), frame("b", usage=None)]
    assert usage_of(frames, CHAT) == {"n": 2}
    assert usage_of(iter([*frames, with_usage({"n": 3, "details": {"m": [1]}})]), CHAT) == {
        "n": 3,
        "details": {"m": [1]},
    }


@pytest.mark.parametrize("usage", [None, [], 5, "x", {}])
def test_no_usage(usage: Any) -> None:
    assert usage_of([frame("a"), with_usage(usage)], CHAT) == {
        "completion_tokens": 1,
        "partial": True,
    }


def test_what_was_seen() -> None:
    call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": ""}}
    frames = [
        delta(role="assistant", content=""),
        delta(reasoning="a"),
        delta(reasoning_content="b", content="c"),
        delta(tool_calls=[call]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": "{"}}]),
        delta(content='says "usage"'),
        b'data: {"choices": [{"index": 1, "delta": {"content": "d"}}]}\n\n',
        b"data: what\n\n",
    ]
    assert usage_of(frames, CHAT) == {"completion_tokens": 6, "partial": True}
    assert usage_of([], CHAT) == {"completion_tokens": 0, "partial": True}


def test_a_response() -> None:
    item = {"type": "function_call", "name": "f"}
    frames = [
        event("response.created", response={"usage": None}),
        event("response.reasoning_text.delta", delta="a"),
        event("response.output_text.delta", delta="b"),
        event("response.output_item.added", item=item),
        event("response.function_call_arguments.delta", delta="{}"),
    ]
    seen = {"completion_tokens": 3, "partial": True}
    assert usage_of(frames, RESPONSES) == seen
    assert usage_of(frames, RESPONSES, event("error", message="no")) == seen
    assert usage_of(frames, RESPONSES, event("response.failed", response={"usage": None})) == seen
    last = event("response.completed", response={"usage": {"total_tokens": 7}})
    assert usage_of(frames, RESPONSES, last) == {"total_tokens": 7}


def test_numbers_that_json_can_not_spell() -> None:
    odd = b'data: {"usage": {"a": 1e999, "b": NaN, "c": [1.5]}}\n\n'
    assert usage_of([odd], CHAT) == {"a": None, "b": None, "c": [1.5]}
