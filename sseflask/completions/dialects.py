"""The two APIs that completions are streamed by: which frames of theirs end an answer. No I/O."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Protocol

from pydantic_core import from_json

from sseflask.completions import failures
from sseflask.completions.frame_splitter import CR, fields, relayed
from sseflask.completions.malformed_frames import (
    error_of,
    is_error,
    mended,
    no_object,
    said_beside,
    stray,
)
from sseflask.completions.outcome import Outcome
from sseflask.completions.response_parts import is_call
from sseflask.completions.upstream_errors import reported
from sseflask.errors import Failure

__all__ = ["CHAT", "RESPONSES", "Answer", "End", "answer", "dialect_of"]

#: The name of Chat Completions, as it is stored.
CHAT = "chat"
#: The name of the Responses API.
RESPONSES = "responses"

_BY_PATH = {"/chat/completions": CHAT, "/responses": RESPONSES}

#: How an answer ends: as the upstream says, or by a failure that it can't tell itself.
End = Outcome | Failure

#: States of a response in which nothing more comes of it.
_OVER = ("completed", "incomplete", "failed", "cancelled", "canceled", "expired")
_ENDS = (*(f"response.{state}" for state in _OVER), "response.error", "error")
#: Events that have a response in them and end nothing, whatever its state.
_BEGINNINGS = ("response.created", "response.queued", "response.in_progress")
#: Events of calls that the client is to make.
_CALLS = ("response.function_call_arguments.", "response.custom_tool_call_input.")
#: The end of Chat Completions; some servers write it as JSON.
_DONE = (b"[DONE]", b'"[DONE]"')
#: What some servers spell out in place of ``null``.
_NO_REASON = ("null", "none")
#: Seconds without an event that may pass once an answer is complete: for its usage, ...
_REST_SECONDS = 10.0
#: ... for its end, once its usage has come in a chunk of its own, which is the last one, ...
_LAST_SECONDS = 3.0
#: ... and after calls of tools: the server may make them itself, and go on.
_CALLS_SECONDS = 30.0
_CALLING = ("tool_calls", "function_call")


class Answer(Protocol):
    """Follows the frames of one streamed answer to its end. Not thread-safe, never blocks.

    Attributes:
        begun: something of it has been relayed.
        patience: seconds of silence after which it is at its end, for nothing of it is missing but
            perhaps its usage; ``None`` before that.
    """

    begun: bool
    patience: float | None

    def take(self, frames: list[bytes]) -> tuple[list[bytes], End | None]:
        """Take in the next frames.

        Returns:
            those of them to be relayed, up to the end where they bring it, and the end.
        """
        ...

    def rest(self, rest: bytes) -> End:
        """The end of an answer whose stream has ended without saying so.

        Args:
            rest: the bytes of its last frame, which was not finished.
        """
        ...


def dialect_of(path: str) -> str:
    """The name of the API that has this path, such as ``/chat/completions``.

    Raises:
        ValueError: none of those that can be relayed has.
    """
    try:
        return _BY_PATH[path]
    except KeyError:
        raise ValueError(f"no completions are streamed at {path}") from None


def answer(dialect: str, secrets: Iterable[str], choices: int = 1) -> Answer:
    """Follow an answer in a dialect.

    Args:
        dialect: the dialect's name.
        secrets: values to mask in what the upstream says when it fails.
        choices: how many answers at once were asked for.
    """
    if dialect == RESPONSES:
        return _Responses(tuple(secrets))
    return _Chat(tuple(secrets), choices)


class _Chat:
    """Ends with ``[DONE]``; one that has named a finish reason may also end with its stream."""

    def __init__(self, secrets: tuple[str, ...], choices: int) -> None:
        self.begun = False
        self.patience: float | None = None
        self._failure: Failure | None = None
        self._secrets = secrets
        self._choices = choices
        self._seen: set[str] = set()
        self._finished: set[str] = set()
        self._reason: str | None = None

    def take(self, frames: list[bytes]) -> tuple[list[bytes], End | None]:
        kept: list[bytes] = []
        several = self._choices > 1
        for frame in frames:
            # The path of every frame of every stream: it is parsed here, once and by the fastest,
            # and `is_plain` is written out.
            value: Any
            if (
                frame.startswith(b"data: {")
                and frame.find(b"\n") == len(frame) - 2
                and CR not in frame
            ):
                try:
                    value = from_json(frame[6:], allow_inf_nan=False)
                except ValueError:
                    frame, value = mended(frame, frame[6:])
            elif frame.startswith(b":") and frame.find(b"\n") == len(frame) - 2:
                continue
            else:
                event, data = fields(frame)
                if not data or data == b"null":
                    if (failure := stray(frame, self._secrets)) is not None:
                        return kept, failure
                    continue
                if data.startswith(_DONE):
                    return kept, self._complete()
                frame, value = mended(relayed(frame), data)
                if event == b"error" and value is not None:
                    return kept, reported(value, self._secrets)
            if value is None:
                return kept, no_object(frame, self._secrets)
            if value.get("error") or "x_groq" in value:
                failure = self._told(value)
                if failure is not None:
                    return [*kept, *said_beside(value)], failure
            choices = value.get("choices")
            if isinstance(choices, list):
                failed = False
                for choice in choices:
                    if isinstance(choice, dict):
                        if several:
                            self._seen.add(str(choice.get("index")))
                        if choice.get("finish_reason") or choice.get("error"):
                            failed = self._note(choice) or failed
                if failed:
                    kept += said_beside(value)
                    if not several:
                        return kept, self._failure
                    continue
                if self.patience is not None and not choices and value.get("usage"):
                    self._wait_for_usage_no_more()
            elif choices is None and is_error(value):
                return kept, reported(value, self._secrets)
            kept.append(frame)
        return kept, None

    def rest(self, rest: bytes) -> End:
        if (fields(rest)[1] or b"").startswith(_DONE):
            return self._complete()
        if self._finished and self._seen <= self._finished:
            return self._complete()
        return stray(rest, self._secrets) or failures.broken_off()

    def _told(self, value: dict[str, Any]) -> Failure | None:
        """The error that a chunk tells beside its choices."""
        if value.get("error"):
            return reported(value, self._secrets)
        groq = value["x_groq"]
        error = groq.get("error") if isinstance(groq, dict) else None
        return reported({"error": error}, self._secrets) if error else None

    def _note(self, choice: dict[str, Any]) -> bool:
        """Note that a choice has ended, and give whether it has failed."""
        reason = choice.get("finish_reason")
        failed = bool(choice.get("error")) or (
            isinstance(reason, str) and reason.lower() == "error"
        )
        if failed:
            if self._failure is None:
                self._failure = reported(error_of(choice), self._secrets)
            reason = "error"
        if isinstance(reason, str) and reason.lower() not in _NO_REASON:
            if not self._finished or not choice.get("index"):
                self._reason = reason
            self._finished.add(str(choice.get("index")))
            if len(self._finished) >= self._choices:
                self.patience = _CALLS_SECONDS if self._reason in _CALLING else _REST_SECONDS
        return failed

    def _wait_for_usage_no_more(self) -> None:
        if self._reason not in _CALLING:
            self.patience = _LAST_SECONDS

    def _complete(self) -> End:
        return self._failure or Outcome("finished", self._reason)


class _Responses:
    """Ends with one of four events, which is relayed as the end."""

    def __init__(self, secrets: tuple[str, ...]) -> None:
        self.begun = False
        self.patience: float | None = None
        self._secrets = secrets
        self._calls = False

    def take(self, frames: list[bytes]) -> tuple[list[bytes], End | None]:
        kept: list[bytes] = []
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
                    if (failure := stray(frame, self._secrets)) is not None:
                        return kept, failure
                    continue
                data = found
                if data.startswith(_DONE):
                    return kept, failures.broken_off()
                frame = relayed(frame)
            try:
                value: Any = from_json(data, allow_inf_nan=False)
            except ValueError:
                frame, value = mended(frame, data)
            if not isinstance(value, dict):
                return kept, no_object(frame, self._secrets)
            kind = value.get("type")
            if not isinstance(kind, str):
                kind = fields(frame)[0].decode(errors="replace")
            if kind in _ENDS:
                return kept, self._end(kind, value, frame)
            if "response" in value and kind not in _BEGINNINGS and (state := _state(value)):
                return kept, self._end(f"response.{state}", value, frame)
            if (not kind or "." not in kind) and is_error(value):
                return kept, reported(value, self._secrets)
            if not self._calls and "_call" in kind:
                self._calls = kind.startswith(_CALLS)
            elif kind.startswith("response.output_item."):
                self._calls = self._calls or is_call(value.get("item"))
            kept.append(frame)
        return kept, None

    def rest(self, rest: bytes) -> End:
        return stray(rest, self._secrets) or failures.broken_off()

    def _end(self, kind: str, value: dict[str, Any], frame: bytes) -> Outcome:
        response = value.get("response")
        if not isinstance(response, dict):
            response = {}
        if kind == "response.completed":
            output = response.get("output")
            calls = self._calls or (isinstance(output, list) and any(map(is_call, output)))
            reason = _reason(response.get("incomplete_details"))
            return Outcome("finished", reason or ("tool_calls" if calls else "stop"), frame=frame)
        if kind == "response.incomplete":
            return Outcome("finished", _reason(response.get("incomplete_details")), frame=frame)
        if kind == "response.failed":
            error = response.get("error")
        elif kind not in ("error", "response.error"):
            state = kind.removeprefix("response.")
            told = {"message": f"The upstream ended its response: it is {state}.", "code": state}
            error = response.get("error") or told
        else:
            # Documented flat, and sent with an inner object too; its "type" is the event's.
            flat = {name: value[name] for name in value if name not in ("type", "sequence_number")}
            error = value.get("error") or flat
        failure = reported(error, self._secrets)
        safe = failures.masked(value, self._secrets)
        if safe != value:
            name = value.get("type") or kind
            frame = f"event: {name}\ndata: {json.dumps(safe)}\n\n".encode()
        return Outcome("failed", failure=failure, frame=frame)


def _state(value: dict[str, Any]) -> str | None:
    """The state of an event's response, if nothing more comes of it; also under an unknown name."""
    response = value["response"]
    if not isinstance(response, dict):
        return None
    state = response.get("status")
    if state is None and value.get("type") == "response.done":
        return "completed"
    return state if state in _OVER else None


def _reason(details: Any) -> str | None:
    reason = details.get("reason") if isinstance(details, dict) else None
    if not isinstance(reason, str):
        return None
    return "length" if reason in ("max_output_tokens", "max_messages") else reason
