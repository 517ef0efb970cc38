"""What a run's events say, in each of its formats: text, ends, ids."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from tests.live.kit.clients import Sent

FORMATS = ["chunks", "text", "events", "ui"]
#: All but `ui`, which can only be read from its start.
RESUMABLE = ["chunks", "text", "events"]


def plain(events: Sequence[Sent]) -> list[Sent]:
    """Events without the pace of reconnecting, which is not the run's."""
    return [Sent(each.data, each.event, each.id) for each in events]


def number(run: str, event: Sent) -> int:
    """The number in an event's id."""
    of, _, digits = (event.id or "").partition(".")
    assert of == run, f"{event.id} is no id of {run}"
    assert digits.isdecimal(), event.id
    return int(digits)


def frames_of(run: str, events: Sequence[Sent]) -> list[int]:
    """Which frame each event belongs to: only the last event of a frame carries the id."""
    found: list[int] = []
    following = 0
    for event in reversed(events):
        if event.id is not None:
            following = number(run, event)
        assert following, "the last event has no id"
        found.append(following)
    return found[::-1]


def after(run: str, events: Sequence[Sent], seen: int) -> list[Sent]:
    """The events that a client misses that has had everything up to this frame."""
    frames = frames_of(run, events)
    return [event for event, frame in zip(events, frames, strict=True) if frame > seen]


def parsed(event: Sent) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(event.data or "")
    return value


def text_of(form: str, events: Sequence[Sent]) -> str:
    """What the model has said, in whatever form."""
    if form == "text":
        return "".join(each.data or "" for each in events if each.event is None)
    if form == "events":
        return "".join(parsed(each)["text"] for each in events if each.event == "text")
    values = [parsed(each) for each in events if each.data != "[DONE]"]
    if form == "ui":
        return "".join(each["delta"] for each in values if each["type"] == "text-delta")
    deltas = [choice["delta"] for each in values for choice in each.get("choices", ())]
    return "".join(delta.get("content") or "" for delta in deltas)


def outcome(form: str, events: Sequence[Sent]) -> str:
    """How a stream has ended: a finish reason, or `error:` and the code (of `ui` no code).

    Fails unless there is exactly one end, and nothing after it.
    """
    ends: list[tuple[int, str]] = []
    for index, event in enumerate(events):
        end = _end(form, event)
        if end is not None:
            ends.append((index, end))
    ((index, said),) = ends
    if form == "ui":
        assert events[-1].data == "[DONE]"
        assert index == len(events) - 2, "nothing comes between"
    else:
        assert index == len(events) - 1, "nothing comes after it"
    assert events[-1].id is not None, "the end can be told from what follows"
    return said


def _end(form: str, event: Sent) -> str | None:
    if form in ("text", "events"):
        if event.event == "done":
            return str(parsed(event)["finish_reason"])
        return f"error:{_code(event)}" if event.event == "failure" else None
    if event.data == "[DONE]":
        return "[DONE]" if form == "chunks" else None
    value = parsed(event)
    if form == "chunks":
        return f"error:{_code(event)}" if "error" in value else None
    return {
        "finish": lambda: str(value["finishReason"]),
        "abort": lambda: str(value["reason"]),
        "error": lambda: "error:",
    }.get(value["type"], lambda: None)()


def _code(event: Sent) -> str:
    value = parsed(event)
    assert set(value) == {"error"}
    error = value["error"]
    assert {"message", "type", "param", "code"} <= set(error)
    assert error["message"]
    return str(error["code"])


def expected_end(form: str, said: str) -> str:
    """How this form tells an end: `stop`, `stopped`, `error:upstream_truncated`..."""
    if said in ("stopped", "cancelled"):
        return f"error:{said}" if form == "chunks" else said
    if said.startswith("error:"):
        return "error:" if form == "ui" else said
    if form == "ui":
        return {"content_filter": "content-filter", "tool_calls": "tool-calls"}.get(said, said)
    return "[DONE]" if form == "chunks" else said


def without_heartbeats(body: bytes) -> bytes:
    """Heartbeats are exactly this line, where a line may begin."""
    body = b"".join(
        line
        for line in body.splitlines(keepends=True)
        if line != b": ping\n" and not line.startswith(b"retry:")
    )
    assert not re.search(rb"^:", body, re.MULTILINE), "a comment that is no heartbeat"
    return body
