"""What the events of a run say, in each of its formats: text, usage, how it ended, ids."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sseflask.completions.formats import FORMATS as _FORMATS
from sseflask.runs.kinds import ASKING_FORMATS
from tests.live.kit.events import Sent

FORMATS = list(_FORMATS)
#: The others can only be read from their start.
RESUMABLE = [name for name, format in _FORMATS.items() if format.resumable]
#: Clients of these ask whether a run exists: one that does not is 204, not 404.
ABSENT_IS_204 = [name for name in _FORMATS if name in ASKING_FORMATS]
#: How `chunks` names a run that was ended before its upstream had: by the error's type.
_GIVEN_UP = {"run_stopped": "stopped", "run_cancelled": "cancelled"}


def joined(text: str) -> str:
    """Text whose characters were cut in two within their UTF-16: put together again.

    Half a character alone, as there may be at the end of what has come so far, is left out.
    """
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "ignore")


@dataclass
class Decoded:
    """What events of a run say. At most one of them, the last one, may be the end.

    Args:
        format: their format.
        events: some or all of a run, without the pace of reconnecting.
    """

    format: str
    events: Sequence[Sent]
    text: str = ""
    reasoning: str = ""
    usage: list[dict[str, Any]] = field(default_factory=list)
    #: finished, stopped, cancelled or failed; empty without a terminal event.
    outcome: str = ""
    #: Why the model ended its answer, as each format spells it.
    reason: str | None = None
    #: The error of a run that has failed, as OpenAI has it; in `ui` its message alone.
    error: Any = None
    #: How many events had text.
    pieces: int = 0

    def __post_init__(self) -> None:
        self.events = plain(self.events)
        for event in self.events:
            if self.format == "ui" and event.data == "[DONE]":
                assert event is self.events[-1], "[DONE] is last, and once"
                assert self.outcome, "it follows the end"
                continue
            assert not self.outcome, f"{event} comes after the end: {self.events[-4:]}"
            getattr(self, f"_{self.format}")(event)
        self.text = joined(self.text)
        self.reasoning = joined(self.reasoning)

    @property
    def end(self) -> str:
        """The end as this format has it: see `expected_end`."""
        assert self.outcome, f"no terminal event: {self.events[-3:]}"
        if self.format == "ui":
            assert self.events[-1].data == "[DONE]"
        assert self.events[-1].id is not None, "the end is distinguishable from what follows"
        if self.error is not None:
            return "error:" if self.format == "ui" else f"error:{self.error['code']}"
        if self.format == "chunks":
            return "[DONE]"
        return str(self.reason)

    def _say(self, text: str | None) -> None:
        self.text += text or ""
        self.pieces += bool(text)

    def _fail(self, data: dict[str, Any], outcome: str = "failed") -> None:
        assert set(data) == {"error"}
        self.error = data["error"]
        assert {"message", "type", "param", "code"} <= set(self.error)
        assert self.error["message"]
        self.outcome = outcome

    def _chunks(self, event: Sent) -> None:
        assert event.event is None
        if event.data == "[DONE]":
            self.outcome = "finished"
            return
        data = parsed(event)
        if "error" in data:
            self._fail(data, _GIVEN_UP.get(data["error"].get("type"), "failed"))
            return
        if data.get("usage"):
            self.usage.append(data["usage"])
        for choice in data.get("choices", ()):
            self._say(choice["delta"].get("content"))
            self.reasoning += choice["delta"].get("reasoning_content") or ""
            self.reason = choice.get("finish_reason") or self.reason

    def _text(self, event: Sent) -> None:
        if event.event is None:
            self._say(event.data)
        else:
            self._done_or_failure(event)

    def _events(self, event: Sent) -> None:
        if event.event == "text":
            self._say(parsed(event)["text"])
        elif event.event == "reasoning":
            self.reasoning += parsed(event)["text"]
        elif event.event == "usage":
            self.usage.append(parsed(event))
        elif event.event != "tool_call":
            self._done_or_failure(event)

    def _done_or_failure(self, event: Sent) -> None:
        if event.event == "failure":
            self._fail(parsed(event))
            return
        assert event.event == "done", event
        self.reason = str(parsed(event)["finish_reason"])
        self.outcome = self.reason if self.reason in _GIVEN_UP.values() else "finished"

    def _ui(self, event: Sent) -> None:
        assert event.event is None
        data = parsed(event)
        if data["type"] == "text-delta":
            self._say(data["delta"])
        elif data["type"] == "reasoning-delta":
            self.reasoning += data["delta"]
        elif data["type"] == "finish":
            self.reason, self.outcome = data["finishReason"], "finished"
        elif data["type"] == "abort":
            self.reason = self.outcome = data["reason"]
        elif data["type"] == "error":
            self.error, self.outcome = data["errorText"], "failed"


def text_of(format: str, events: Sequence[Sent]) -> str:
    """What the model has said."""
    return Decoded(format, events).text


def end_of(format: str, events: Sequence[Sent]) -> str:
    """How a stream has ended, in its format; fails unless there is exactly one end."""
    return Decoded(format, events).end


def expected_end(format: str, end: str) -> str:
    """How this format has an end: `stop`, `length`, `stopped`, `error:upstream_truncated`..."""
    if end in ("stopped", "cancelled"):
        return f"error:{end}" if format == "chunks" else end
    if end.startswith("error:"):
        return "error:" if format == "ui" else end
    if format == "ui":
        return {"content_filter": "content-filter", "tool_calls": "tool-calls"}.get(end, end)
    return "[DONE]" if format == "chunks" else end


def plain(events: Sequence[Sent]) -> list[Sent]:
    """Events without the pace of reconnecting, which belongs to the connection."""
    return [replace(each, retry=None) for each in events]


def parsed(event: Sent) -> dict[str, Any]:
    """The event's data, which are a JSON object."""
    value: dict[str, Any] = json.loads(event.data or "")
    return value


def number(run: str, event: Sent) -> int:
    """The number in an event's id."""
    of, _, digits = (event.id or "").partition(".")
    assert of == run, f"{event.id} is no id of {run}"
    assert digits.isdecimal(), event.id
    return int(digits)


def last_id(events: Sequence[Sent]) -> str:
    """What a client that has had these events sends as `Last-Event-ID`."""
    return next(event.id for event in reversed(events) if event.id)


def frames_of(run: str, events: Sequence[Sent]) -> list[int]:
    """Which frame each event belongs to: only the last event of a frame has the id."""
    found: list[int] = []
    following = 0
    for event in reversed(events):
        if event.id is not None:
            following = number(run, event)
        assert following, "the last event has no id"
        found.append(following)
    return found[::-1]


def after(run: str, events: Sequence[Sent], frame: int) -> list[Sent]:
    """The events that a client lacks that has had everything up to this frame."""
    frames = frames_of(run, events)
    return [event for event, each in zip(events, frames, strict=True) if each > frame]


def without_heartbeats(body: bytes) -> bytes:
    """A body without heartbeats, which are exactly this line, and without `retry` lines."""
    body = b"".join(
        line
        for line in body.splitlines(keepends=True)
        if line != b": ping\n" and not line.startswith(b"retry:")
    )
    assert not re.search(rb"^:", body, re.MULTILINE), "a comment that is no heartbeat"
    return body
