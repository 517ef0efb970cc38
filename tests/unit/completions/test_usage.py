from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest

from sseflask.completions.dialects import CHAT, RESPONSES
from sseflask.completions.usage import FRAME_BYTES, usage_of
from tests.scripted_upstream import event, frame, tally_of


def with_usage(usage: Any) -> bytes:
    return b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\n"


def delta(**more: Any) -> bytes:
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": more}]}).encode() + b"\n\n"


def used(frames: Iterable[bytes], outcome_frame: bytes | None = None, dialect: str = CHAT) -> Any:
    return usage_of(tally_of(frames), dialect, outcome_frame)


def partial(said: int) -> dict[str, Any]:
    return {"completion_tokens": said, "partial": True}


def test_what_the_upstream_says_at_last() -> None:
    frames = [with_usage({"n": 1}), frame("a", usage={"n": 2}), frame("b", usage=None)]
    assert used(frames) == {"n": 2}
    assert used([*frames, with_usage({"n": 3, "details": {"m": [1]}})]) == {
        "n": 3,
        "details": {"m": [1]},
    }


@pytest.mark.parametrize("usage", [None, [], 5, "x", {}])
def test_no_usage(usage: Any) -> None:
    assert used([frame("a"), with_usage(usage)]) == partial(1)
    assert used([with_usage({"n": 1}), with_usage(usage)]) == {"n": 1}


def test_nothing_came() -> None:
    assert used([]) is None


def test_what_was_seen() -> None:
    call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": ""}}
    frames = [
        delta(role="assistant", content=""),
        delta(reasoning="a"),
        delta(reasoning_content="b", content="c"),
        delta(content=None, refusal="no"),
        delta(content=[{"type": "text", "text": "a part"}]),
        delta(tool_calls=[call]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": "{"}}]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": {"whole": 1}}}]),
        delta(content='says "usage": {"n": 1}'),
        delta(content='"'),
        b'data: {"choices":[{"index":1,"delta":{"content":"d"}}]}\n\n',
        b'event: message\ndata: {"choices": [{"delta": {"content": "d"}}]}\n\n',
        b"data: what\n\n",
        frame(finish="stop"),
    ]
    assert used(frames) == partial(10)


def test_a_response() -> None:
    item = {"type": "function_call", "name": "f"}
    frames = [
        event("response.created", response={"usage": None}),
        event("response.reasoning_text.delta", delta="a"),
        event("response.output_text.delta", delta="b"),
        event("response.output_text.done", text="b"),
        event("response.output_item.added", item=item),
        event("response.function_call_arguments.delta", delta="{}"),
    ]
    assert used(frames, None, RESPONSES) == partial(3)
    assert used(frames, event("error", message="no"), RESPONSES) == partial(3)
    failed = event("response.failed", response={"usage": None})
    assert used(frames, failed, RESPONSES) == partial(3)
    last = event("response.completed", response={"usage": {"total_tokens": 7}})
    assert used(frames, last, RESPONSES) == {"total_tokens": 7}


def test_a_document_of_many_lines() -> None:
    lines = json.dumps({"usage": {"n": 1}}, indent=2).encode().split(b"\n")
    assert used([b"".join([b"data: %b\n" % line for line in lines]) + b"\n"]) == {"n": 1}


def test_numbers_that_json_can_not_spell() -> None:
    odd = b'data: {"usage": {"a": 1e999, "b": NaN, "c": [1.5]}}\n\n'
    assert used([odd]) == {"a": None, "b": None, "c": [1.5]}


def test_frames_are_counted_with_what_each_takes_beside_its_bytes() -> None:
    tally = tally_of([b"data: 1\n\n", b"data: 22\n\n"])
    assert (tally.last, tally.size) == (2, 9 + 10 + 2 * FRAME_BYTES)
