from __future__ import annotations

import json
from typing import Any

import pytest

from sseflask.completions.failures import error_frame
from sseflask.completions.formats import FORMATS, Frames
from sseflask.completions.upstream import DONE, ErrorFrame
from sseflask.errors import Failure
from sseflask.event import Event
from tests.completions.scripted import frame


def shown(form: str, *frames: bytes) -> list[Any]:
    return list(FORMATS[form].view(frame for frame in frames))


def done(reason: str | None) -> Event:
    return Event({"finish_reason": reason}, event="done")


def failing(*frames: bytes) -> Frames:
    yield from frames
    raise ErrorFrame(error_frame({"message": "no"}, ()), b"the upstream's own frame")


def test_chunks_are_passed_as_they_are() -> None:
    frames = [b"anything\n\n", frame("one"), DONE]
    assert shown("chunks", *frames) == frames


def test_chunks_end_with_the_upstreams_own_error() -> None:
    passed = list(FORMATS["chunks"].view(failing(b"one")))
    assert passed == [b"one", b"the upstream's own frame"]


def test_chunks_tell_a_failure_in_openais_shape() -> None:
    tell = FORMATS["chunks"].failure_event
    assert tell is not None
    event = tell(Failure("broken", code="x"))
    assert (event.event, event.id) == (None, None)
    assert json.loads(event.data or "") == {
        "error": {"message": "broken", "type": "server_error", "param": None, "code": "x"}
    }


def test_text() -> None:
    frames = [
        frame(""),
        frame("你"),
        frame("好\n"),
        frame(),
        frame("!", finish="length"),
        b'data: {"choices": [], "usage": {"total_tokens": 3}}\n\n',
        DONE,
    ]
    assert shown("text", *frames) == ["你", "好\n", "!", done("length")]


def test_text_is_of_the_first_choice() -> None:
    other = b'data: {"choices":[{"index":1,"delta":{"content":"b"},"finish_reason":"stop"}]}\n\n'
    assert shown("text", frame("a"), other, frame(finish="length"), DONE) == ["a", done("length")]


def test_text_without_a_reason() -> None:
    assert shown("text", frame("a"), DONE) == ["a", done(None)]


def test_text_fails_with_the_upstreams_error() -> None:
    view = FORMATS["text"].view(failing(frame("a")))
    assert next(view) == "a"
    with pytest.raises(Failure, match="no"):
        next(view)


@pytest.mark.parametrize(
    "data", ["no json", "[]", "null", "{}", '{"choices": 1}', '{"choices": [1]}', "[" * 100_000]
)
def test_text_of_something_else(data: str) -> None:
    view = FORMATS["text"].view(sent for sent in [f"data: {data}\n\n".encode()])
    with pytest.raises(Failure) as caught:
        next(view)
    assert (caught.value.status, caught.value.code) == (502, "upstream_invalid")


@pytest.mark.parametrize("form", FORMATS)
def test_closing_closes_the_upstream(form: str) -> None:
    closed = []

    def frames() -> Frames:
        try:
            yield frame("one")
            yield frame("two")
        finally:
            closed.append(True)

    upstream = frames()
    view = FORMATS[form].view(upstream)
    next(view)
    view.close()  # type: ignore[attr-defined]  # generators, all of them
    assert closed == [True]


def test_events() -> None:
    usage = b'data: {"choices": [], "usage": {"total_tokens": 3}}\n\n'
    assert shown("events", frame("a"), frame(finish="stop"), usage, DONE) == [
        Event({"text": "a"}, event="text"),
        Event({"total_tokens": 3}, event="usage"),
        done("stop"),
    ]


def test_a_ui_message_says_what_it_is() -> None:
    assert FORMATS["ui"].headers == {"x-vercel-ai-ui-message-stream": "v1"}
    first, *_, last = shown("ui", frame("a"), DONE)
    assert json.loads(first.data)["type"] == "start"
    assert last.data == "[DONE]"
