"""The forms in which a completion can be asked for: views of the upstream's frames."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from sseflask.completions import failures
from sseflask.completions.frames import fields
from sseflask.completions.upstream import DONE, ErrorFrame
from sseflask.errors import Failure
from sseflask.event import Event

__all__ = ["FORMATS", "Format"]


class Format(NamedTuple):
    """One form of a completion.

    Args:
        view: makes what is sent of the upstream's frames.
        failure_event: tells a failure after the first byte; ``None`` for the library's way.
    """

    view: Callable[[Iterator[bytes]], Iterator[Any]]
    failure_event: Callable[[Failure], Event] | None


def _chunks(frames: Iterator[bytes]) -> Iterator[bytes]:
    """OpenAI's own form, byte for byte."""
    try:
        yield from frames
    except ErrorFrame as error:
        yield error.frame


def _openai_error(failure: Failure) -> Event:
    return Event(failure.json())


def _text(frames: Iterator[bytes]) -> Iterator[str | Event]:
    """Only what the model says, then an event ``done`` with the reason why it stopped."""
    reason: str | None = None
    for frame in frames:
        if frame is DONE:
            yield Event({"finish_reason": reason}, event="done")
            continue
        try:
            chunk = json.loads(fields(frame)[1] or b"null")
            # A last chunk with the usage has no choices; others may have several.
            choices = [choice for choice in chunk["choices"] if choice.get("index", 0) == 0]
            piece = "".join(choice["delta"].get("content") or "" for choice in choices)
            reason = next((c["finish_reason"] for c in choices if c.get("finish_reason")), reason)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise failures.not_a_stream("an event of it is no chat completion chunk") from None
        if piece:
            yield piece


FORMATS = {"chunks": Format(_chunks, _openai_error), "text": Format(_text, None)}
