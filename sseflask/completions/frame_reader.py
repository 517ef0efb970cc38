"""The parts of a completion's frames, in either API, as text that UTF-8 can carry. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from sseflask.completions.chat_parts import ChatParts
from sseflask.completions.dialects import RESPONSES
from sseflask.completions.frame_splitter import message
from sseflask.completions.json_values import dict_or_empty
from sseflask.completions.parts import (
    Approval,
    Citation,
    File,
    HostedCall,
    Part,
    Reasoning,
    Text,
    ToolCall,
    well_formed,
)
from sseflask.completions.response_parts import ResponseParts


class PartReader:
    """Reads a completion, frame by frame: its first choice. Not thread-safe, never blocks."""

    def __init__(self, dialect: str) -> None:
        self._parts: ResponseParts | ChatParts = (
            ResponseParts() if dialect == RESPONSES else ChatParts()
        )
        self._text, self._reasoning = _TextPieces(), _TextPieces()
        self._arguments: dict[int, _TextPieces] = {}

    def feed(self, frame: bytes) -> list[Part]:
        """Give the parts of a frame, in order. What can't be read in it is left out."""
        event, value = message(frame)
        return self._well_formed(self._parts.feed(event, value)) if isinstance(value, dict) else []

    def finish(self, last: bytes | None = None) -> list[Part]:
        """Give what is left at the end, after the upstream's own last frame if its API has one."""
        parts = self._well_formed(self._parts.finish(dict_or_empty(message(last or b"")[1])))
        if rest := self._reasoning.finish():
            parts.append(Reasoning(rest))
        if rest := self._text.finish():
            parts.append(Text(rest))
        for index, arguments in self._arguments.items():
            if rest := arguments.finish():
                parts.append(ToolCall(index, "", "", rest))
        return parts

    def _well_formed(self, parts: Iterator[Part]) -> list[Part]:
        return [part for each in parts if (part := self._part(each)) is not None]

    def _part(self, part: Part) -> Part | None:
        if isinstance(part, ToolCall):
            arguments = self._arguments.setdefault(part.index, _TextPieces()).feed(part.arguments)
            id, name = well_formed(part.id), well_formed(part.name)
            part = ToolCall(part.index, id, name, arguments)
            return part if id or name or arguments else None
        if isinstance(part, (HostedCall, Approval)):
            return replace(part, id=well_formed(part.id), name=well_formed(part.name))
        if isinstance(part, (File, Citation)):
            return part
        text = (self._text if isinstance(part, Text) else self._reasoning).feed(part.text)
        return type(part)(text) if text else None


class _TextPieces:
    """A text in pieces that may be cut between the halves of a surrogate pair.

    JSON can spell an emoji as two escapes, and a model's pieces may be cut between them.
    """

    def __init__(self) -> None:
        self._half = ""

    def feed(self, piece: str) -> str:
        """Give what is well-formed by now."""
        if piece.isascii() and not self._half:
            return piece
        text = self._half + piece
        self._half = text[-1] if text and "\ud800" <= text[-1] <= "\udbff" else ""
        return well_formed(text[: len(text) - len(self._half)])

    def finish(self) -> str:
        """Give a mark for the half that is left."""
        half, self._half = self._half, ""
        return well_formed(half)
