"""What a chat completion's chunks say: text, reasoning, tool calls, usage, the end. No I/O."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeAlias

from sseflask.completions import failures
from sseflask.completions.frames import fields
from sseflask.completions.upstream import DONE

__all__ = ["Finish", "Frames", "Part", "Reasoning", "Text", "ToolCall", "Usage", "parts"]

Frames: TypeAlias = Generator[bytes, None, None]

_REPLACEMENT = "\ufffd"


@dataclass(frozen=True)
class Text:
    """A piece of what the model says."""

    text: str


@dataclass(frozen=True)
class Reasoning:
    """A piece of what it thinks."""

    text: str


@dataclass(frozen=True)
class ToolCall:
    """A piece of a call that it wants made.

    Args:
        index: tells the calls of one answer apart.
        id: the call's id; empty in all pieces but the first.
        name: the function's name; likewise.
        arguments: a piece of the arguments' JSON.
    """

    index: int
    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Usage:
    """How many tokens it took, as the upstream counts them."""

    counts: dict[str, Any]


@dataclass(frozen=True)
class Finish:
    """The answer is complete.

    Args:
        reason: why it ends, as OpenAI names it; ``None`` where no chunk said.
    """

    reason: str | None


Part = Text | Reasoning | ToolCall | Usage | Finish


class _Whole:
    """Text that UTF-8 can carry, of pieces that may be cut between two halves of a letter.

    JSON can spell an emoji as two escapes, and a model's pieces may be cut between them.
    """

    def __init__(self) -> None:
        self._held = ""

    def add(self, piece: str) -> str:
        """Give what is whole by now."""
        if piece.isascii() and not self._held:
            return piece
        text = self._held + piece
        self._held = text[-1] if text and "\ud800" <= text[-1] <= "\udbff" else ""
        text = text[: len(text) - len(self._held)]
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    def rest(self) -> str:
        """Give a mark for the half that is left."""
        held, self._held = self._held, ""
        return _REPLACEMENT if held else ""


def parts(frames: Frames) -> Iterator[Part]:
    """Read an answer: its first choice, and what concerns the whole of it.

    Args:
        frames: what `sseflask.completions.upstream.Upstream.frames` gives; closed with this.

    Yields:
        the parts in the order in which they come, and `Finish` as the last one.

    Raises:
        Failure: a frame is no chunk of a chat completion; and what ``frames`` raises.
    """
    text, reasoning, arguments = _Whole(), _Whole(), dict[int, _Whole]()
    reason: str | None = None
    with closing(frames):
        for frame in frames:
            if frame is DONE:
                yield from _left(text, reasoning)
                yield Finish(reason)
                continue
            event, data = fields(frame)
            if event:
                continue  # no chunk: those have no type
            try:
                chunk = json.loads(data or b"null")
                # A last chunk with the usage has no choices, filters send some without a delta.
                for choice in chunk["choices"] or ():
                    if choice.get("index", 0) == 0:
                        reason = choice.get("finish_reason") or reason
                        delta = choice.get("delta") or {}
                        yield from _of_delta(delta, text, reasoning, arguments)
                if isinstance(chunk.get("usage"), dict):
                    yield Usage(chunk["usage"])
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                raise failures.not_a_stream("an event of it is no chat completion chunk") from None


def _left(text: _Whole, reasoning: _Whole) -> Iterator[Part]:
    if left := reasoning.rest():
        yield Reasoning(left)
    if left := text.rest():
        yield Text(left)


def _of_delta(
    delta: dict[str, Any], text: _Whole, reasoning: _Whole, arguments: dict[int, _Whole]
) -> Iterator[Part]:
    # DeepSeek, llama.cpp and LiteLLM say reasoning_content, vLLM and Ollama reasoning.
    thought = delta.get("reasoning_content") or delta.get("reasoning") or ""
    if thought and (piece := reasoning.add("" + thought)):
        yield Reasoning(piece)
    if piece := text.add("" + (delta.get("content") or "")):
        yield Text(piece)
    for call in delta.get("tool_calls") or ():
        index, function = int(call.get("index") or 0), call.get("function") or {}
        whole = arguments.setdefault(index, _Whole())
        name = "" + (function.get("name") or "")
        said = whole.add("" + (function.get("arguments") or ""))
        id = "" + (call.get("id") or "")
        if id or name or said:
            yield ToolCall(index, id, name, said)
