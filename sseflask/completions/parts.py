"""What the frames of an answer say: text, reasoning, tool calls. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from sseflask.completions.dialects import RESPONSES
from sseflask.completions.frames import message

__all__ = ["Part", "Reader", "Reasoning", "Text", "ToolCall", "pieces"]

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


Part: TypeAlias = Text | Reasoning | ToolCall


class Reader:
    """Reads an answer, frame by frame: its first choice. Not thread-safe, never blocks.

    Args:
        dialect: the name of the API that the frames are of.
    """

    def __init__(self, dialect: str) -> None:
        self._dialect = dialect
        self._text, self._reasoning = _Whole(), _Whole()
        self._arguments: dict[int, _Whole] = {}

    def take(self, frame: bytes) -> list[Part]:
        """Give what a frame says, in order, as text that UTF-8 can carry.

        What can't be read in it is left out.
        """
        return [
            whole
            for choice, part in pieces(self._dialect, frame)
            if choice == 0 and (whole := self._whole(part)) is not None
        ]

    def rest(self) -> list[Part]:
        """Give marks for the halves of letters whose other halves never came."""
        left: list[Part] = []
        if mark := self._reasoning.rest():
            left.append(Reasoning(mark))
        if mark := self._text.rest():
            left.append(Text(mark))
        for index, arguments in self._arguments.items():
            if mark := arguments.rest():
                left.append(ToolCall(index, "", "", mark))
        return left

    def _whole(self, part: Part) -> Part | None:
        if isinstance(part, ToolCall):
            arguments = self._arguments.setdefault(part.index, _Whole()).add(part.arguments)
            id, name = _carried(part.id), _carried(part.name)
            whole = replace(part, id=id, name=name, arguments=arguments)
            return whole if id or name or arguments else None
        text = (self._text if isinstance(part, Text) else self._reasoning).add(part.text)
        return type(part)(text) if text else None


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
        return _carried(text[: len(text) - len(self._held)])

    def rest(self) -> str:
        """Give a mark for the half that is left."""
        held, self._held = self._held, ""
        return _REPLACEMENT if held else ""


def _carried(text: str) -> str:
    """The text with halves of surrogate pairs put together, and marks for those left alone."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def pieces(dialect: str, frame: bytes) -> Iterator[tuple[int, Part]]:
    """What a frame says, as it says it: letters may be cut in two.

    Args:
        dialect: the name of the API that the frame is of.
        frame: any frame; what can't be read of it is left out.

    Yields:
        the index of the choice that says it, and a part that is not empty.
    """
    event, value = message(frame)
    if not isinstance(value, dict):
        return
    if dialect == RESPONSES:
        kind = value.get("type") or event.decode(errors="replace")
        if (part := _of_event(kind, value)) is not None:
            yield 0, part
    elif not event:  # no chunk: those have no type
        for choice in _dicts(value.get("choices")):
            delta = choice.get("delta")
            if isinstance(delta, dict):
                index = _number(choice.get("index"))
                for part in _of_delta(delta):
                    yield index, part


def _of_delta(delta: dict[str, Any]) -> Iterator[Part]:
    # DeepSeek, llama.cpp and LiteLLM say reasoning_content, vLLM and Ollama reasoning.
    if thought := _string(delta.get("reasoning_content")) or _string(delta.get("reasoning")):
        yield Reasoning(thought)
    if said := _string(delta.get("content")):
        yield Text(said)
    if refused := _string(delta.get("refusal")):
        yield Text(refused)
    for call in _dicts(delta.get("tool_calls")):
        function = call.get("function")
        if not isinstance(function, dict):
            function = {}
        id, name = _string(call.get("id")), _string(function.get("name"))
        arguments = _string(function.get("arguments"))
        if id or name or arguments:
            yield ToolCall(_number(call.get("index")), id, name, arguments)


def _of_event(kind: Any, value: dict[str, Any]) -> Part | None:
    delta = _string(value.get("delta"))
    index = _number(value.get("output_index"))
    if kind in ("response.output_text.delta", "response.refusal.delta"):
        return Text(delta) if delta else None
    if kind in ("response.reasoning_text.delta", "response.reasoning_summary_text.delta"):
        return Reasoning(delta) if delta else None
    if kind == "response.function_call_arguments.delta":
        return ToolCall(index, "", "", delta) if delta else None
    item = value.get("item")
    if (
        kind == "response.output_item.added"
        and isinstance(item, dict)
        and item.get("type") == "function_call"
    ):
        id = _string(item.get("call_id")) or _string(item.get("id"))
        return ToolCall(index, id, _string(item.get("name")), "")
    return None


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0
