"""An answer as a UI message stream of the AI SDK (version 7, protocol v1).

https://ai-sdk.dev/docs/ai-sdk-ui/stream-protocol. A reader throws at a delta whose block was not
started, so such a stream can only be read from its start.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import closing
from itertools import chain
from typing import Any

from sseflask.completions.parts import (
    Finish,
    Frames,
    Part,
    Reasoning,
    Text,
    ToolCall,
    Usage,
    parts,
)
from sseflask.errors import Failure
from sseflask.event import Event

__all__ = ["HEADERS", "ui_events", "ui_failure"]

#: What tells a reader that this is one.
HEADERS = {"x-vercel-ai-ui-message-stream": "v1"}

_REASONS = {
    "stop": "stop",
    "length": "length",
    "content_filter": "content-filter",
    "tool_calls": "tool-calls",
    "function_call": "tool-calls",
}


def ui_failure(failure: Failure) -> Event:
    """How a failure is told in such a stream."""
    return Event({"type": "error", "errorText": failure.message})


def ui_events(frames: Frames) -> Iterator[Event]:
    """An answer's events, from ``start`` to ``[DONE]``."""
    with closing(frames):
        read = parts(frames)
        # Before anything is said: a request that fails at once is an error response.
        first = next(read)
        yield Event({"type": "start", "messageId": f"msg-{uuid.uuid4().hex}"})
        yield Event({"type": "start-step"})
        message = _Message()
        for part in chain([first], read):
            for chunk in message.take(part):
                yield Event(chunk)
        yield Event("[DONE]")


class _Message:
    """Which blocks of a message are open."""

    def __init__(self) -> None:
        self._open: tuple[str, str] | None = None
        self._blocks = 0
        self._calls: dict[int, _Call] = {}
        self._usage: dict[str, Any] | None = None

    def take(self, part: Part) -> Iterator[dict[str, Any]]:
        if isinstance(part, Text):
            yield from self._delta("text", part.text)
        elif isinstance(part, Reasoning):
            yield from self._delta("reasoning", part.text)
        elif isinstance(part, ToolCall):
            yield from self._close()
            yield from self._call(part)
        elif isinstance(part, Usage):
            self._usage = part.counts
        else:
            yield from self._close()
            for call in self._calls.values():
                yield call.available()
            yield {"type": "finish-step"}
            yield self._finish(part)

    def _delta(self, kind: str, text: str) -> Iterator[dict[str, Any]]:
        if self._open is None or self._open[0] != kind:
            yield from self._close()
            self._blocks += 1
            self._open = (kind, f"{kind}-{self._blocks}")
            yield {"type": f"{kind}-start", "id": self._open[1]}
        yield {"type": f"{kind}-delta", "id": self._open[1], "delta": text}

    def _close(self) -> Iterator[dict[str, Any]]:
        if self._open is not None:
            kind, id = self._open
            self._open = None
            yield {"type": f"{kind}-end", "id": id}

    def _call(self, piece: ToolCall) -> Iterator[dict[str, Any]]:
        call = self._calls.get(piece.index)
        if call is None:
            call = self._calls[piece.index] = _Call(piece.id or f"call-{piece.index}", piece.name)
            yield {"type": "tool-input-start", "toolCallId": call.id, "toolName": call.name}
        call.arguments.append(piece.arguments)
        if piece.arguments:
            yield {
                "type": "tool-input-delta",
                "toolCallId": call.id,
                "inputTextDelta": piece.arguments,
            }

    def _finish(self, finish: Finish) -> dict[str, Any]:
        reason = _REASONS.get(finish.reason or "", "other")
        usage = {} if self._usage is None else {"messageMetadata": {"usage": self._usage}}
        return {"type": "finish", "finishReason": reason, **usage}


class _Call:
    """A tool call whose arguments are still coming."""

    def __init__(self, id: str, name: str) -> None:
        self.id = id
        self.name = name
        self.arguments: list[str] = []

    def available(self) -> dict[str, Any]:
        """The whole call; where the model has not written JSON, what it has written."""
        text = "".join(self.arguments)
        call: dict[str, Any] = {"toolCallId": self.id, "toolName": self.name}
        try:
            return {"type": "tool-input-available", **call, "input": json.loads(text or "{}")}
        except (ValueError, RecursionError):
            told = "The model's arguments are not JSON."
            return {"type": "tool-input-error", **call, "input": text, "errorText": told}
