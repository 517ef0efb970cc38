"""An answer as a UI message stream of the AI SDK (version 7, protocol v1).

https://ai-sdk.dev/docs/ai-sdk-ui/stream-protocol. A reader throws at a delta whose block was not
started, so such a stream can only be read from its start.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

from sseflask.completions.completion_outcome import CompletionOutcome
from sseflask.completions.formats.views import data_of, encoded
from sseflask.completions.frame_reader import PartReader
from sseflask.completions.parts import (
    Approval,
    Citation,
    File,
    HostedCall,
    Part,
    Reasoning,
    Text,
    ToolCall,
)
from sseflask.errors import Failure
from sseflask.event import Event
from sseflask.runs.format_api import id_of

#: The header by which a client recognises the protocol.
HEADERS = {"x-vercel-ai-ui-message-stream": "v1"}

_REASONS = {
    "stop": "stop",
    "length": "length",
    "content_filter": "content-filter",
    "tool_calls": "tool-calls",
    "function_call": "tool-calls",
}


def ui_failure(failure: Failure) -> Event:
    """The chunk of a failure in such a stream."""
    return Event(data_of({"type": "error", "errorText": failure.message}))


class Messages:
    """One message, from ``start`` to ``[DONE]``; a `View`."""

    def __init__(self, run: str, dialect: str) -> None:
        self._run = run
        self._reader = PartReader(dialect)
        self._started = False
        self._blocks = _Blocks(run)

    def take(self, number: int, frame: bytes) -> bytes:
        chunks = self._chunks(self._reader.feed(frame))
        return encoded([(None, data_of(chunk)) for chunk in chunks], id_of(self._run, number))

    def end(self, number: int, outcome: CompletionOutcome) -> bytes:
        """The message's end: ``finish``, ``abort`` or ``error``, and then ``[DONE]``."""
        finished = outcome.kind == "finished"
        chunks = self._chunks(self._reader.finish(outcome.frame))
        chunks += self._blocks.end(complete=finished)
        if finished:
            chunks += [{"type": "finish-step"}, _finish(outcome)]
        elif outcome.kind == "failed" and (failure := outcome.as_failure()) is not None:
            chunks.append({"type": "error", "errorText": failure.message})
        else:
            chunks.append({"type": "abort", "reason": outcome.kind})
        events = [*((None, data_of(chunk)) for chunk in chunks), (None, "[DONE]")]
        return encoded(events, id_of(self._run, number))

    def _chunks(self, parts: list[Part]) -> list[dict[str, Any]]:
        chunks: list[dict[str, Any]] = []
        if not self._started:
            self._started = True
            chunks = [{"type": "start", "messageId": f"msg-{self._run}"}, {"type": "start-step"}]
        return [*chunks, *(chunk for part in parts for chunk in self._blocks.take(part))]


def _finish(outcome: CompletionOutcome) -> dict[str, Any]:
    reason = _REASONS.get(outcome.reason or "", "other")
    usage = {} if outcome.usage is None else {"messageMetadata": {"usage": outcome.usage}}
    return {"type": "finish", "finishReason": reason, **usage}


class _Blocks:
    """The open block of a message, and its tool calls.

    The run's id is in the ids of calls without one, which must be unique in a chat.
    """

    def __init__(self, run: str) -> None:
        self._run = run
        self._open: tuple[str, str] | None = None
        self._count = self._sources = 0
        self._calls: dict[int, _Call] = {}
        self._ids: set[str] = set()

    def take(self, part: Part) -> Iterator[dict[str, Any]]:
        if isinstance(part, Text):
            yield from self._delta("text", part.text)
        elif isinstance(part, Reasoning):
            yield from self._delta("reasoning", part.text)
        elif isinstance(part, Citation):
            yield self._source(part)  # within a text, which goes on
        else:
            yield from self._close()
            if isinstance(part, ToolCall):
                yield from self._call(part)
            elif isinstance(part, File):
                yield {"type": "file", "url": part.url, "mediaType": part.media_type}
            else:
                yield from self._hosted(part)

    def _hosted(self, part: HostedCall | Approval) -> Iterator[dict[str, Any]]:
        """A call that the upstream makes itself."""
        id = self._id(part.id)
        call = {"toolCallId": id, "providerExecuted": True, "dynamic": True}
        name = part.name if isinstance(part, HostedCall) else f"mcp.{part.name}"
        made = {"toolName": name, "input": part.arguments}
        yield {"type": "tool-input-available", **call, **made}
        if isinstance(part, HostedCall):
            yield {"type": "tool-output-available", **call, "output": part.output}
        else:
            yield {"type": "tool-approval-request", "approvalId": part.id, "toolCallId": id}

    def _source(self, part: Citation) -> dict[str, Any]:
        self._sources += 1
        source = {"sourceId": f"source-{self._sources}", "title": part.title or part.url}
        if part.url:
            return {"type": "source-url", **source, "url": part.url}
        named = {"mediaType": "text/plain", "filename": part.filename}
        return {"type": "source-document", **source, **named}

    def _call(self, part: ToolCall) -> Iterator[dict[str, Any]]:
        call = self._calls.get(part.index)
        if call is None:
            call = self._calls[part.index] = _Call(self._id(part.id), part.name)
            yield {"type": "tool-input-start", "toolCallId": call.id, "toolName": call.name}
        if part.arguments:
            call.arguments.append(part.arguments)
            delta = {"toolCallId": call.id, "inputTextDelta": part.arguments}
            yield {"type": "tool-input-delta", **delta}

    def _id(self, id: str) -> str:
        number = len(self._ids)
        if not id or id in self._ids:
            id = f"{id or 'call'}-{self._run}-{number}"
        self._ids.add(id)
        return id

    def end(self, complete: bool) -> Iterator[dict[str, Any]]:
        """The chunks that close the open block; the calls of an incomplete answer fail."""
        yield from self._close()
        for call in self._calls.values():
            yield (
                call.available()
                if complete
                else call.failed("The answer ended before this call was complete.")
            )

    def _delta(self, kind: str, text: str) -> Iterator[dict[str, Any]]:
        if self._open is None or self._open[0] != kind:
            yield from self._close()
            self._count += 1
            self._open = (kind, f"{kind}-{self._count}")
            yield {"type": f"{kind}-start", "id": self._open[1]}
        yield {"type": f"{kind}-delta", "id": self._open[1], "delta": text}

    def _close(self) -> Iterator[dict[str, Any]]:
        if self._open is not None:
            kind, id = self._open
            self._open = None
            yield {"type": f"{kind}-end", "id": id}


class _Call:
    """A tool call whose arguments are still coming."""

    def __init__(self, id: str, name: str) -> None:
        self.id = id
        self.name = name
        self.arguments: list[str] = []

    def available(self) -> dict[str, Any]:
        """The complete call, or an error if the model has not written JSON."""
        text = "".join(self.arguments)
        try:
            value = json.loads(text or "{}", parse_constant=_finite, parse_float=_finite)
        except (ValueError, RecursionError):
            return self.failed("The model's arguments are not JSON.")
        call = {"toolCallId": self.id, "toolName": self.name}
        return {"type": "tool-input-available", **call, "input": value}

    def failed(self, message: str) -> dict[str, Any]:
        """The error of a call: without it the user interface would wait for the call."""
        call = {"toolCallId": self.id, "toolName": self.name, "input": "".join(self.arguments)}
        return {"type": "tool-input-error", **call, "errorText": message}


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits} is not JSON")
    return number
