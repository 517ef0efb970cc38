"""Pieces of text as chunks of a chat completion."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sseflask import EventError, text_chunks
from sseflask.completions.text_run import TextEncoder
from tests.live.kit.run_events import FORMATS


def chunks_of(frames: list[bytes]) -> list[dict[str, Any]]:
    assert all(frame.startswith(b"data: {") and frame.endswith(b"}\n\n") for frame in frames)
    return [json.loads(frame[6:]) for frame in frames]


def test_each_piece_is_a_chunk() -> None:
    encoder = TextEncoder("a1", "llama")
    texts = ["One ", "", "zwei\n\r\n", "你好"]
    frames = [frame for text in texts for frame in encoder.frames(text)]
    *chunks, last = chunks_of([*frames, encoder.last()])
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [
        {"role": "assistant", "content": "One "},
        {"content": "zwei\n\r\n"},
        {"content": "你好"},
    ]
    assert last["choices"] == [{"index": 0, "delta": {}, "finish_reason": "stop"}]
    for chunk in (*chunks, last):
        assert (chunk["id"], chunk["model"]) == ("chatcmpl-a1", "llama")
        assert chunk["object"] == "chat.completion.chunk"
        assert chunk["created"] == last["created"]
    assert {chunk["choices"][0]["finish_reason"] for chunk in chunks} == {None}


def test_no_text_at_all() -> None:
    (last,) = chunks_of([TextEncoder("a1", "text").last()])
    assert last["choices"][0]["delta"] == {"role": "assistant"}


def test_half_a_character_is_replaced() -> None:
    (chunk,) = chunks_of(TextEncoder("a1", "text").frames("a\ud83d"))
    assert chunk["choices"][0]["delta"]["content"] == "a?"


@pytest.mark.parametrize("item", [b"one", None, 1, {"text": "one"}])
def test_what_is_no_text(item: object) -> None:
    with pytest.raises(EventError, match=r"not a \w+: give its text"):
        TextEncoder("a1", "text").frames(item)


@pytest.mark.parametrize("texts", ["text", b"text", None, 7, lambda: iter(["one"])])
def test_what_is_no_iterable_of_texts(texts: Any) -> None:
    with pytest.raises(TypeError, match="must be an iterable"):
        text_chunks(texts)


def test_an_asynchronous_iterator() -> None:
    async def texts() -> Any:
        yield "never"

    given: Any = texts()
    with pytest.raises(TypeError, match="is asynchronous"):
        text_chunks(given)


def test_all_formats_are_tested() -> None:
    assert FORMATS == ["chunks", "text", "events", "ui"]
