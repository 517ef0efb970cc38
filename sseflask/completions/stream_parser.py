"""Follows the streams of both APIs to their ends. No I/O."""

from __future__ import annotations

import json
from typing import Any

from pydantic_core import from_json

from sseflask.completions.completion_outcome import CompletionOutcome
from sseflask.completions.documents import has_content
from sseflask.completions.error_messages import is_error, value_of
from sseflask.completions.frame_splitter import CR, data_frame, fields, repaired, stripped
from sseflask.completions.json_values import dict_or_empty, dicts, list_or_empty, text_or_empty
from sseflask.completions.response_parts import is_call
from sseflask.completions.upstream_errors import broken_off, invalid, masked, reported
from sseflask.errors import Failure

#: The end of a stream: an outcome, or a failure that has no frame of its own in the API.
End = CompletionOutcome | Failure
#: The data of the last frame of Chat Completions; some servers write it as JSON.
_DONE = (b"[DONE]", b'"[DONE]"')

#: Seconds of silence to wait for the usage, after the finish reason.
_REST_SECONDS = 10.0
#: Seconds of silence to wait for the end, after the usage in a chunk of its own, the last one.
_LAST_SECONDS = 3.0
#: Seconds of silence after tool calls: the server may make them itself, and go on.
_CALLS_SECONDS = 30.0
_CALLING = ("tool_calls", "function_call")
#: What some servers write in place of ``null``.
_NO_REASON = ("null", "none")

#: States of a response that is over.
_OVER = ("completed", "incomplete", "failed", "cancelled", "canceled", "expired")
_ENDS = (*(f"response.{state}" for state in _OVER), "response.error", "error")
#: Events that have a response in them and end nothing, whatever its state.
_BEGINNINGS = ("response.created", "response.queued", "response.in_progress")
#: Events of calls that the client is to make.
_CALLS = ("response.function_call_arguments.", "response.custom_tool_call_input.")


class StreamParser:
    """Follows the frames of one completion to its end. Not thread-safe, never blocks.

    Attributes:
        idle_limit: seconds of silence after which the completion counts as complete: only its usage
            may be missing. ``None`` while more is missing.
    """

    def __init__(self, secrets: tuple[str, ...]) -> None:
        self.idle_limit: float | None = None
        self._secrets = secrets

    def feed(self, frames: list[bytes]) -> tuple[list[bytes], End | None]:
        """Read the next frames. Give those to relay, and the end if it is among them."""
        raise NotImplementedError

    def finish(self, rest: bytes) -> End:
        """The end of a stream that stopped without one; ``rest`` is an incomplete frame."""
        return _bare_error(rest, self._secrets) or broken_off()


class ChatParser(StreamParser):
    """Ends with ``[DONE]``; with the stream's end if every choice has its finish reason."""

    def __init__(self, secrets: tuple[str, ...], choices: int) -> None:
        super().__init__(secrets)
        self._failure: Failure | None = None
        self._choices = choices
        self._seen: set[str] = set()
        self._finished: set[str] = set()
        self._reason: str | None = None

    def feed(self, frames: list[bytes]) -> tuple[list[bytes], End | None]:
        relayed: list[bytes] = []
        several = self._choices > 1
        for frame in frames:
            # Every frame of every stream passes here. It is parsed once, by the fastest parser, and
            # `is_plain` is written out.
            value: Any
            if (
                frame.startswith(b"data: {")
                and frame.find(b"\n") == len(frame) - 2
                and CR not in frame
            ):
                try:
                    value = from_json(frame[6:], allow_inf_nan=False)
                except ValueError:
                    frame, value = repaired(frame, frame[6:])
            elif frame.startswith(b":") and frame.find(b"\n") == len(frame) - 2:
                continue
            else:
                event, data = fields(frame)
                if not data or data == b"null":
                    if (failure := _bare_error(frame, self._secrets)) is not None:
                        return relayed, failure
                    continue
                if data.startswith(_DONE):
                    return relayed, self._complete()
                frame, value = repaired(stripped(frame), data)
                if event == b"error" and value is not None:
                    return relayed, reported(value, self._secrets)
            if value is None:
                return relayed, _not_an_object(frame, self._secrets)
            if value.get("error") or "x_groq" in value:
                failure = self._error_beside_choices(value)
                if failure is not None:
                    return [*relayed, *_content_beside_error(value)], failure
            choices = value.get("choices")
            if isinstance(choices, list):
                failed = False
                for choice in choices:
                    if isinstance(choice, dict):
                        if several:
                            self._seen.add(str(choice.get("index")))
                        if choice.get("finish_reason") or choice.get("error"):
                            failed = self._finish_choice(choice) or failed
                if failed:
                    relayed += _content_beside_error(value)
                    if not several:
                        return relayed, self._failure
                    continue
                if (
                    self.idle_limit is not None
                    and not choices
                    and value.get("usage")
                    and self._reason not in _CALLING
                ):
                    self.idle_limit = _LAST_SECONDS
            elif choices is None and is_error(value):
                return relayed, reported(value, self._secrets)
            relayed.append(frame)
        return relayed, None

    def finish(self, rest: bytes) -> End:
        complete = self._finished and self._seen <= self._finished
        if complete or (fields(rest)[1] or b"").startswith(_DONE):
            return self._complete()
        return super().finish(rest)

    def _error_beside_choices(self, value: dict[str, Any]) -> Failure | None:
        if value.get("error"):
            return reported(value, self._secrets)
        error = dict_or_empty(value["x_groq"]).get("error")
        return reported({"error": error}, self._secrets) if error else None

    def _finish_choice(self, choice: dict[str, Any]) -> bool:
        """Note a choice's finish reason, and give whether it has failed."""
        reason = choice.get("finish_reason")
        failed = bool(choice.get("error")) or (
            isinstance(reason, str) and reason.lower() == "error"
        )
        if failed:
            if self._failure is None:
                # OpenRouter may say no more than the finish reason ``error``.
                fallback = {"message": "The upstream ended its answer with an error."}
                self._failure = reported(choice.get("error") or fallback, self._secrets)
            reason = "error"
        if isinstance(reason, str) and reason.lower() not in _NO_REASON:
            if not self._finished or not choice.get("index"):
                self._reason = reason
            self._finished.add(str(choice.get("index")))
            if len(self._finished) >= self._choices:
                self.idle_limit = _CALLS_SECONDS if self._reason in _CALLING else _REST_SECONDS
        return failed

    def _complete(self) -> End:
        return self._failure or CompletionOutcome("finished", self._reason)


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
                    if (failure := _bare_error(frame, self._secrets)) is not None:
                        return relayed, failure
                    continue
                data = found
                if data.startswith(_DONE):
                    return relayed, broken_off()
                frame = stripped(frame)
            try:
                value: Any = from_json(data, allow_inf_nan=False)
            except ValueError:
                frame, value = repaired(frame, data)
            if not isinstance(value, dict):
                return relayed, _not_an_object(frame, self._secrets)
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
        safe = masked(value, self._secrets)
        if safe != value:
            name = value.get("type") or kind
            frame = f"event: {name}\ndata: {json.dumps(safe)}\n\n".encode()
        return CompletionOutcome("failed", failure=failure, frame=frame)


def _state(value: dict[str, Any]) -> str | None:
    """The final state of an event's response, whatever the event's name; else ``None``."""
    state = dict_or_empty(value["response"]).get("status")
    if state is None and value.get("type") == "response.done":
        return "completed"
    return state if state in _OVER else None


def _reason(details: Any) -> str | None:
    reason = text_or_empty(dict_or_empty(details).get("reason"))
    return "length" if reason in ("max_output_tokens", "max_messages") else reason or None


def _content_beside_error(value: dict[str, Any]) -> list[bytes]:
    """A frame of a chunk's content and usage, if it has any beside its error.

    Without the error, in which there may be a key.
    """
    choices = [
        {name: choice[name] for name in choice if name != "error"}
        for choice in dicts(value.get("choices"))
    ]
    if not value.get("usage") and not any(map(has_content, choices)):
        return []
    rest = {name: value[name] for name in value if name not in ("error", "x_groq")}
    return [data_frame({**rest, "choices": choices})]


def _not_an_object(frame: bytes, secrets: tuple[str, ...]) -> Failure:
    """The failure of a frame whose data is no JSON object."""
    event, data = fields(frame)
    text = (data or b"").decode(errors="replace")
    if event == b"error":
        return reported(value_of(text) or text, secrets)
    return invalid("an event of it is not a JSON object", text, secrets)


def _bare_error(frame: bytes, secrets: tuple[str, ...]) -> Failure | None:
    """The error of a frame without data: bare JSON, or llama.cpp's field ``error``."""
    text = frame.removeprefix(b"error:").decode(errors="replace").strip()
    if frame.startswith(b"error:"):
        return reported(value_of(text) or text, secrets)
    value = value_of(text) if frame.startswith(b"{") else None
    return reported(value, secrets) if is_error(value) else None
