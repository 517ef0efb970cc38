"""Follows a stream of the Responses API to its end. No I/O."""

from __future__ import annotations

import json
from typing import Any

from pydantic_core import from_json

from sseflask.completions import failures
from sseflask.completions.frame_errors import bare_error, is_error, not_an_object
from sseflask.completions.frame_splitter import CR, fields, repaired, stripped
from sseflask.completions.json_values import dict_or_empty, list_or_empty, text_or_empty
from sseflask.completions.outcome import CompletionOutcome
from sseflask.completions.response_parts import is_call
from sseflask.completions.stream_parser import DONE, End, StreamParser
from sseflask.completions.upstream_errors import reported

__all__ = ["ResponseParser"]

#: States of a response that is over.
_OVER = ("completed", "incomplete", "failed", "cancelled", "canceled", "expired")
_ENDS = (*(f"response.{state}" for state in _OVER), "response.error", "error")
#: Events that have a response in them and end nothing, whatever its state.
_BEGINNINGS = ("response.created", "response.queued", "response.in_progress")
#: Events of calls that the client is to make.
_CALLS = ("response.function_call_arguments.", "response.custom_tool_call_input.")


class ResponseParser(StreamParser):
    """Ends with one of several events, which is the outcome's frame."""

    def __init__(self, secrets: tuple[str, ...]) -> None:
        super().__init__(secrets)
        self._calls = False

    def feed(self, frames: list[bytes]) -> tuple[list[bytes], End | None]:
        relayed: list[bytes] = []
        for frame in frames:
            # Nearly all of them are one line "event: ..." and one line "data: {...}".
            head, _, tail = frame.partition(b"\ndata: {")
            if (
                tail.find(b"\n") == len(tail) - 2
                and head.startswith(b"event: ")
                and b"\n" not in head
                and CR not in frame
            ):
                data = frame[len(head) + 7 :]
            else:
                found = fields(frame)[1]
                if not found or found == b"null":
                    if (failure := bare_error(frame, self._secrets)) is not None:
                        return relayed, failure
                    continue
                data = found
                if data.startswith(DONE):
                    return relayed, failures.broken_off()
                frame = stripped(frame)
            try:
                value: Any = from_json(data, allow_inf_nan=False)
            except ValueError:
                frame, value = repaired(frame, data)
            if not isinstance(value, dict):
                return relayed, not_an_object(frame, self._secrets)
            kind = value.get("type")
            if not isinstance(kind, str):
                kind = fields(frame)[0].decode(errors="replace")
            if kind in _ENDS:
                return relayed, self._end(kind, value, frame)
            if "response" in value and kind not in _BEGINNINGS and (state := _state(value)):
                return relayed, self._end(f"response.{state}", value, frame)
            if (not kind or "." not in kind) and is_error(value):
                return relayed, reported(value, self._secrets)
            if not self._calls and "_call" in kind:
                self._calls = kind.startswith(_CALLS)
            elif kind.startswith("response.output_item."):
                self._calls = self._calls or is_call(value.get("item"))
            relayed.append(frame)
        return relayed, None

    def _end(self, kind: str, value: dict[str, Any], frame: bytes) -> CompletionOutcome:
        response = dict_or_empty(value.get("response"))
        if kind in ("response.completed", "response.incomplete"):
            reason = _reason(response.get("incomplete_details"))
            if not reason and kind == "response.completed":
                calls = self._calls or any(map(is_call, list_or_empty(response.get("output"))))
                reason = "tool_calls" if calls else "stop"
            return CompletionOutcome("finished", reason, frame=frame)
        error = response.get("error")
        if kind in ("error", "response.error"):
            # Documented flat, and sent with an inner object too; its "type" is the event's.
            flat = {name: value[name] for name in value if name not in ("type", "sequence_number")}
            error = value.get("error") or flat
        elif kind != "response.failed" and not error:
            state = kind.removeprefix("response.")
            error = {"message": f"The upstream ended its response: it is {state}.", "code": state}
        failure = reported(error, self._secrets)
        safe = failures.masked(value, self._secrets)
        if safe != value:
            name = value.get("type") or kind
            frame = f"event: {name}\ndata: {json.dumps(safe)}\n\n".encode()
        return CompletionOutcome("failed", failure=failure, frame=frame)


def _state(value: dict[str, Any]) -> str | None:
    """The state of an event's response that is over; also under an unknown name of the event."""
    state = dict_or_empty(value["response"]).get("status")
    if state is None and value.get("type") == "response.done":
        return "completed"
    return state if state in _OVER else None


def _reason(details: Any) -> str | None:
    reason = text_or_empty(dict_or_empty(details).get("reason"))
    return "length" if reason in ("max_output_tokens", "max_messages") else reason or None
