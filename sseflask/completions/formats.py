"""The forms in which a completion can be asked for: views of the upstream's frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from sseflask.completions.parts import (
    Finish,
    Frames,
    Reasoning,
    Text,
    ToolCall,
    Usage,
    parts,
)
from sseflask.completions.ui import HEADERS, ui_events, ui_failure
from sseflask.completions.upstream import ErrorFrame
from sseflask.errors import Failure
from sseflask.event import Event

__all__ = ["FORMATS", "Format", "Frames"]


class Format(NamedTuple):
    """One form of a completion.

    Args:
        view: makes what is sent of the upstream's frames.
        failure_event: tells a failure after the first byte; ``None`` for the library's way.
        headers: the response's further headers.
    """

    view: Callable[[Frames], Iterator[Any]]
    failure_event: Callable[[Failure], Event] | None
    headers: Mapping[str, str] = {}


def _chunks(frames: Frames) -> Iterator[bytes]:
    """OpenAI's own form, byte for byte."""
    try:
        yield from frames
    except ErrorFrame as error:
        yield error.frame


def _openai_error(failure: Failure) -> Event:
    return Event(failure.json())


def _text(frames: Frames) -> Iterator[str | Event]:
    """Only what the model says, then an event ``done`` with the reason why it stopped."""
    for part in parts(frames):
        if isinstance(part, Text):
            yield part.text
        elif isinstance(part, Finish):
            yield _done(part)


def _events(frames: Frames) -> Iterator[Event]:
    """Everything, each in an event with a type of its own."""
    for part in parts(frames):
        if isinstance(part, Text):
            yield Event({"text": part.text}, event="text")
        elif isinstance(part, Reasoning):
            yield Event({"text": part.text}, event="reasoning")
        elif isinstance(part, ToolCall):
            call = {"index": part.index, "id": part.id, "name": part.name}
            yield Event({**call, "arguments": part.arguments}, event="tool_call")
        elif isinstance(part, Usage):
            yield Event(part.counts, event="usage")
        else:
            yield _done(part)


def _done(finish: Finish) -> Event:
    return Event({"finish_reason": finish.reason}, event="done")


FORMATS = {
    "chunks": Format(_chunks, _openai_error),
    "text": Format(_text, None),
    "events": Format(_events, None),
    "ui": Format(ui_events, ui_failure, HEADERS),
}
