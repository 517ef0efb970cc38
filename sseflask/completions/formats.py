"""The forms in which a completion can be asked for: views of the upstream's frames."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import Any, NamedTuple, TypeAlias

from sseflask.completions import failures
from sseflask.completions.frames import fields
from sseflask.completions.upstream import DONE, ErrorFrame
from sseflask.errors import Failure
from sseflask.event import Event

__all__ = ["FORMATS", "Format"]

_REPLACEMENT = "\ufffd"


Frames: TypeAlias = Generator[bytes, None, None]


class Format(NamedTuple):
    """One form of a completion.

    Args:
        view: makes what is sent of the upstream's frames.
        failure_event: tells a failure after the first byte; ``None`` for the library's way.
    """

    view: Callable[[Frames], Iterator[Any]]
    failure_event: Callable[[Failure], Event] | None


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
    reason: str | None = None
    held = ""
    with closing(frames):
        for frame in frames:
            if frame is DONE:
                if held:
                    yield _REPLACEMENT
                yield Event({"finish_reason": reason}, event="done")
                continue
            piece, reason = _first_choice(frame, reason)
            if not piece.isascii() or held:
                piece, held = _whole(held + piece)
            if piece:
                yield piece


def _whole(text: str) -> tuple[str, str]:
    """Text that UTF-8 can carry, and half a surrogate pair whose other half is still to come.

    JSON can spell an emoji as two escapes, and a model's pieces may be cut between them.
    """
    held = text[-1] if text and "\ud800" <= text[-1] <= "\udbff" else ""
    text = text[: len(text) - len(held)]
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"), held


def _first_choice(frame: bytes, reason: str | None) -> tuple[str, str | None]:
    """What the first choice says in this chunk, and why it has stopped, if it has."""
    event, data = fields(frame)
    if event:
        return "", reason  # no chunk: those have no type
    try:
        chunk = json.loads(data or b"null")
        # A last chunk with the usage has no choices, filters send some without a delta.
        choices = [c for c in chunk["choices"] or () if c.get("index", 0) == 0]
        piece = "".join((c.get("delta") or {}).get("content") or "" for c in choices)
        return piece, next((c["finish_reason"] for c in choices if c.get("finish_reason")), reason)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise failures.not_a_stream("an event of it is no chat completion chunk") from None


FORMATS = {"chunks": Format(_chunks, _openai_error), "text": Format(_text, None)}
