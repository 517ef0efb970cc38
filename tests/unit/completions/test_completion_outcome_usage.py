from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest

from sseflask.completions import completion_outcome as module
from sseflask.completions.completion_outcome import CompletionOutcome, usage_of, with_usage_notes
from sseflask.completions.frame_splitter import message
from sseflask.runs.outcome import Generated, NotedFrames
from tests.scripted_upstream import event, frame, notes_of


def with_usage(usage: Any) -> bytes:
    return b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\n"


def delta(**more: Any) -> bytes:
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": more}]}).encode() + b"\n\n"


def used(frames: Iterable[bytes], outcome_frame: bytes | None = None) -> Any:
    return usage_of(notes_of(frames), outcome_frame)


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
    assert used(frames) == partial(3)
    assert used(frames, event("error", message="no")) == partial(3)
    failed = event("response.failed", response={"usage": None})
    assert used(frames, failed) == partial(3)
    last = event("response.completed", response={"usage": {"total_tokens": 7}})
    assert used(frames, last) == {"total_tokens": 7}


def test_a_document_of_many_lines() -> None:
    lines = json.dumps({"usage": {"n": 1}}, indent=2).encode().split(b"\n")
    assert used([b"".join([b"data: %b\n" % line for line in lines]) + b"\n"]) == {"n": 1}


def test_numbers_that_json_can_not_spell() -> None:
    odd = b'data: {"usage": {"a": 1e999, "b": NaN, "c": [1.5]}}\n\n'
    assert used([odd]) == {"a": None, "b": None, "c": [1.5]}


def test_a_usage_that_is_not_of_the_answer() -> None:
    beside = b'data: {"choices": [], "x": {"usage": {"n": 2}}}\n\n'
    assert used([frame("a"), beside]) == partial(1)
    assert used([with_usage({"n": 1}), beside]) == {"n": 1}


def test_a_usage_that_is_too_long_is_left_out() -> None:
    assert used([frame("a"), with_usage({"n": "x" * 5000})]) == partial(1)


def test_only_frames_with_a_usage_are_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[bytes] = []

    def parse(frame: bytes) -> Any:
        parsed.append(frame)
        return message(frame)

    monkeypatch.setattr(module, "message", parse)
    telling = with_usage({"n": 1})
    notes = notes_of([frame("a"), frame("b", usage=None), telling, frame("c")])
    assert parsed == [telling]
    assert usage_of(notes) == {"n": 1}
    assert parsed == [telling], "nor is any at the end"


def test_each_frame_has_the_notes_up_to_it() -> None:
    closed: list[bool] = []

    def answer() -> Generated:
        try:
            yield [frame("a"), with_usage({"n": 1})]
            yield []
            yield [frame("b")]
            yield CompletionOutcome("finished")
            yield CompletionOutcome("stopped")
        finally:
            closed.append(True)

    noted = with_usage_notes(answer())
    first, empty, second, end = (next(noted) for _ in range(4))
    assert isinstance(first, NotedFrames)
    assert first.frames == [frame("a"), with_usage({"n": 1})]
    assert [usage_of(notes) for notes in first.notes] == [partial(1), {"n": 1}]
    assert empty == NotedFrames([], [])
    assert isinstance(second, NotedFrames)
    assert [usage_of(notes) for notes in second.notes] == [{"n": 1}]
    assert end == CompletionOutcome("finished")
    assert closed == []
    assert next(noted) == CompletionOutcome("stopped"), "it may be advanced further"
    noted.close()
    assert closed == [True]
