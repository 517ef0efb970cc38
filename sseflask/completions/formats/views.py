"""The views that make a completion's events from its frames one by one. No I/O.

The same frames always give the same bytes, so a new view can go on after another one. A run's label
is the dialect of its frames, except that all runs of a `Document` have one label.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sseflask.completions.completion_outcome import CompletionOutcome
from sseflask.completions.dialects import RESPONSES
from sseflask.completions.frame_reader import PartReader
from sseflask.completions.frame_splitter import fields, message
from sseflask.completions.json_values import dict_or_empty
from sseflask.completions.parts import Approval, Citation, File, HostedCall, Part, Reasoning, Text
from sseflask.errors import Failure
from sseflask.event import Event
from sseflask.runs.format_api import id_of
from sseflask.wire import encode

# Made once: json.dumps makes a new encoder at each call with options.
_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def data_of(value: Mapping[str, Any]) -> str:
    """JSON on one line; lone surrogates of an upstream are replaced, so that UTF-8 can carry it."""
    text = _to_json(value)
    return text if text.isascii() else text.encode(errors="replace").decode()


def encoded(events: Sequence[tuple[str | None, str]], id: str) -> bytes:
    """Events, each with its type and data; the last of them has the id."""
    return b"".join(
        encode(Event(data, event, id if number == len(events) else None))
        for number, (event, data) in enumerate(events, 1)
    )


class Chunks:
    """The upstream's frames with ids, and the end as its API has it."""

    def __init__(self, run: str, dialect: str) -> None:
        self._run = run.encode()
        self._dialect = dialect
        self._newest = b""

    def take(self, number: int, frame: bytes) -> bytes:
        self._newest = frame
        return b"id: %b.%d\n%b" % (self._run, number, frame)

    def end(self, number: int, outcome: CompletionOutcome) -> bytes:
        """The upstream's last frame, or else ``[DONE]`` or an error."""
        if outcome.frame is not None:
            return self.take(number, outcome.frame)
        failure = outcome.as_failure()
        if failure is None:
            return self.take(number, b"data: [DONE]\n\n")
        if self._dialect == RESPONSES:
            event = response_error(failure, self._next_in_sequence(number))
        else:
            event = chat_error(failure)
        return self.take(number, encode(event))

    def _next_in_sequence(self, number: int) -> int:
        """The number that the upstream's next event would have had: it counts from 0."""
        newest = dict_or_empty(message(self._newest)[1]).get("sequence_number")
        return newest + 1 if isinstance(newest, int) else number - 1


def chat_error(failure: Failure) -> Event:
    """The event of a failure in a stream of Chat Completions."""
    return Event(failure.json())


def response_error(failure: Failure, sequence: int = 0) -> Event:
    """The event of a failure in a stream of the Responses API.

    Its number is 0 for a failure of the connection alone, which is not part of the answer.
    """
    error = failure.body()["error"]
    known = {name: error[name] for name in ("code", "message", "param")}
    return Event(data_of({"type": "error", **known, "sequence_number": sequence}), event="error")


class _PartsView:
    """A view that makes events from the parts of the answer."""

    with_usage = False

    def __init__(self, run: str, dialect: str) -> None:
        self._run = run
        self._reader = PartReader(dialect)

    def take(self, number: int, frame: bytes) -> bytes:
        return encoded(self._events(self._reader.feed(frame)), id_of(self._run, number))

    def end(self, number: int, outcome: CompletionOutcome) -> bytes:
        """``done`` with the reason, or ``failure`` with the error."""
        parts = self._reader.finish(outcome.frame)
        events = self._events(parts)
        if self.with_usage and outcome.usage is not None:
            events.append(("usage", data_of(outcome.usage)))
        if outcome.kind == "failed" and (failure := outcome.as_failure()) is not None:
            events.append(("failure", failure.json()))
        else:
            reason = outcome.reason if outcome.kind == "finished" else outcome.kind
            events.append(("done", data_of({"finish_reason": reason})))
        return encoded(events, id_of(self._run, number))

    def _events(self, parts: list[Part]) -> list[tuple[str | None, str]]:
        raise NotImplementedError


class Texts(_PartsView):
    """The model's text alone, then an event ``done`` with the finish reason."""

    def _events(self, parts: list[Part]) -> list[tuple[str | None, str]]:
        return [(None, part.text) for part in parts if isinstance(part, Text)]


class Events(_PartsView):
    """All parts and the usage, each in an event of its own type."""

    with_usage = True

    def _events(self, parts: list[Part]) -> list[tuple[str | None, str]]:
        return [_event_of(part) for part in parts]


def _event_of(part: Part) -> tuple[str, str]:
    if isinstance(part, Text):
        return "text", data_of({"text": part.text})
    if isinstance(part, Reasoning):
        return "reasoning", data_of({"text": part.text})
    if isinstance(part, HostedCall):
        call = {"id": part.id, "name": part.name, "arguments": part.arguments}
        return "hosted_call", data_of({**call, "output": part.output})
    if isinstance(part, Approval):
        call = {"id": part.id, "name": part.name, "arguments": part.arguments}
        return "approval_request", data_of({**call, "server": part.server})
    if isinstance(part, File):
        return "file", data_of({"url": part.url, "media_type": part.media_type})
    if isinstance(part, Citation):
        place = {"url": part.url} if part.url else {"filename": part.filename}
        return "source", data_of({**place, "title": part.title})
    call = {"index": part.index, "id": part.id, "name": part.name}
    return "tool_call", data_of({**call, "arguments": part.arguments})


class Document:
    """The whole document at the end, or an error response."""

    def __init__(self, _run: str, _dialect: str) -> None:
        self._body = b""

    def take(self, _number: int, frame: bytes) -> bytes:
        self._body = fields(frame)[1] or b""
        return b""

    def end(self, _number: int, outcome: CompletionOutcome) -> bytes:
        failure = outcome.as_failure()
        if failure is not None:
            raise failure
        return self._body
