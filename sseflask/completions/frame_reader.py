"""What the frames of an answer say, in either API, as text that UTF-8 can carry. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from sseflask.completions.chat_parts import ChatParts
from sseflask.completions.dialects import RESPONSES
from sseflask.completions.frame_splitter import message
from sseflask.completions.parts import (
    Approval,
    File,
    HostedCall,
    Part,
    Reasoning,
    Source,
    Text,
    ToolCall,
)
from sseflask.completions.response_parts import ResponseParts

__all__ = ["PartReader"]

_REPLACEMENT = "\ufffd"


class PartReader:
    """Reads an answer, frame by frame: its first choice. Not thread-safe, never blocks.

    Args:
        dialect: the name of the API that the frames are of.
    """

    def __init__(self, dialect: str) -> None:
        self._chat = None if dialect == RESPONSES else ChatParts()
        self._response = ResponseParts()
        self._text, self._reasoning = _Whole(), _Whole()
        self._arguments: dict[int, _Whole] = {}

    def feed(self, frame: bytes) -> list[Part]:
        """Give what a frame says, in order, as text that UTF-8 can carry.

        What can't be read in it is left out.
        """
        event, value = message(frame)
        if not isinstance(value, dict):
            return []
        if self._chat is None:
            kind = value.get("type") or event.decode(errors="replace")
            return self._wholes(self._response.take(kind, value))
        # Under any event type, as OpenAI's clients and the AI SDK have it.
        return self._wholes(self._chat.take(value))

    def finish(self, last: bytes | None = None) -> list[Part]:
        """Give what is left at the answer's end, and marks for halves of letters.

        Args:
            last: the upstream's own last frame, where its API has one.
        """
        if self._chat is not None:
            left = self._wholes(self._chat.rest())
        else:
            value = None if last is None else message(last)[1]
            left = self._wholes(self._response.rest(value if isinstance(value, dict) else None))
        if mark := self._reasoning.rest():
            left.append(Reasoning(mark))
        if mark := self._text.rest():
            left.append(Text(mark))
        for index, arguments in self._arguments.items():
            if mark := arguments.rest():
                left.append(ToolCall(index, "", "", mark))
        return left

    def _wholes(self, parts: Iterator[Part]) -> list[Part]:
        return [whole for part in parts if (whole := self._whole(part)) is not None]

    def _whole(self, part: Part) -> Part | None:
        if isinstance(part, ToolCall):
            arguments = self._arguments.setdefault(part.index, _Whole()).add(part.arguments)
            id, name = _carried(part.id), _carried(part.name)
            whole = replace(part, id=id, name=name, arguments=arguments)
            return whole if id or name or arguments else None
        if isinstance(part, HostedCall):
            return replace(part, id=_carried(part.id), name=_carried(part.name))
        if isinstance(part, Approval):
            return replace(part, id=_carried(part.id), name=_carried(part.name))
        if isinstance(part, (File, Source)):
            return part
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
