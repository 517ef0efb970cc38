"""The two APIs that completions are streamed by: which frames of theirs end an answer. No I/O."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Protocol

from pydantic_core import from_json

from sseflask.completions import failures
from sseflask.completions.frames import CR, fields, read_json, relayed
from sseflask.completions.outcome import Outcome
from sseflask.completions.response_parts import is_call
from sseflask.errors import Failure

__all__ = ["CHAT", "RESPONSES", "Answer", "End", "answer", "dialect_of"]

#: The name of Chat Completions, as it is stored.
CHAT = "chat"
#: The name of the Responses API.
RESPONSES = "responses"

_BY_PATH = {"/chat/completions": CHAT, "/responses": RESPONSES}

#: How an answer ends: as the upstream says, or by a failure that it can't tell itself.
End = Outcome | Failure

_ENDS = ("response.completed", "response.incomplete", "response.failed", "error")
#: Events of calls that the client is to make.
_CALLS = ("response.function_call_arguments.", "response.custom_tool_call_input.")
_NO_OBJECT = "an event of it is not a JSON object"


class Answer(Protocol):
    """Follows the frames of one streamed answer to its end. Not thread-safe, never blocks."""

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


def answer(dialect: str, secrets: Iterable[str]) -> Answer:
    """Follow an answer in a dialect.

    Args:
        dialect: the dialect's name.
        secrets: values to mask in what the upstream says when it fails.
    """
    return (_Responses if dialect == RESPONSES else _Chat)(tuple(secrets))


class _Chat:
    """Ends with ``[DONE]``; one that has named a finish reason may also end with its stream."""

    def __init__(self, secrets: tuple[str, ...]) -> None:
        self._secrets = secrets
        self._finished = False
        self._reason: str | None = None

    def take(self, frames: list[bytes]) -> tuple[list[bytes], End | None]:
        kept: list[bytes] = []
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
                    value = from_json(frame[6:])
                except ValueError:
                    value = _object(frame[6:])  # also of halves of surrogate pairs
            else:
                event, data = fields(frame)
                if not data:
                    continue
                if data == b"[DONE]":
                    return kept, self._complete()
                frame = relayed(frame)
                value = _object(data)
                if event == b"error":
                    return kept, _reported(value, self._secrets)
            if value is None:
                return kept, failures.not_a_stream(_NO_OBJECT)
            if value.get("error"):
                return kept, _reported(value, self._secrets)
            choices = value.get("choices")
            if isinstance(choices, list):
                for choice in choices:
                    if isinstance(choice, dict) and choice.get("finish_reason"):
                        self._note(choice)
            kept.append(frame)
        return kept, None

    def rest(self, rest: bytes) -> End:
        if self._finished or fields(rest)[1] == b"[DONE]":
            return self._complete()
        return failures.broken_off()

    def _note(self, choice: dict[str, Any]) -> None:
        reason = choice["finish_reason"]
        if isinstance(reason, str) and (not self._finished or not choice.get("index")):
            self._finished = True
            self._reason = reason

    def _complete(self) -> Outcome:
        return Outcome("finished", self._reason)


class _Responses:
    """Ends with one of four events, which is relayed as the end."""

    def __init__(self, secrets: tuple[str, ...]) -> None:
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
                if not found:
                    continue
                data = found
                if data == b"[DONE]":
                    return kept, failures.broken_off()
                frame = relayed(frame)
            try:
                value: Any = from_json(data)
            except ValueError:
                value = _object(data)
            if not isinstance(value, dict):
                return kept, failures.not_a_stream(_NO_OBJECT)
            kind = value.get("type")
            if not isinstance(kind, str):
                kind = fields(frame)[0].decode(errors="replace")
            if kind in _ENDS:
                return kept, self._end(kind, value, frame)
            if not kind and value.get("error"):
                return kept, _reported(value, self._secrets)
            if not self._calls and "_call" in kind:
                self._calls = kind.startswith(_CALLS)
            elif kind.startswith("response.output_item."):
                self._calls = self._calls or is_call(value.get("item"))
            kept.append(frame)
        return kept, None

    def rest(self, rest: bytes) -> End:  # noqa: ARG002  # the protocol's
        return failures.broken_off()

    def _end(self, kind: str, value: dict[str, Any], frame: bytes) -> Outcome:
        response = value.get("response")
        if not isinstance(response, dict):
            response = {}
        if kind == "response.completed":
            output = response.get("output")
            calls = self._calls or (isinstance(output, list) and any(map(is_call, output)))
            return Outcome("finished", "tool_calls" if calls else "stop", frame=frame)
        if kind == "response.incomplete":
            return Outcome("finished", _reason(response.get("incomplete_details")), frame=frame)
        if kind == "response.failed":
            error = response.get("error")
        else:
            # Documented flat, and sent with an inner object too; its "type" is the event's.
            flat = {name: value[name] for name in value if name not in ("type", "sequence_number")}
            error = value.get("error") or flat
        failure = failures.error_frame(error, self._secrets)
        safe = failures.masked(value, self._secrets)
        if safe != value:
            frame = f"event: {kind}\ndata: {json.dumps(safe)}\n\n".encode()
        return Outcome("failed", failure=failure, frame=frame)


def _reason(details: Any) -> str | None:
    reason = details.get("reason") if isinstance(details, dict) else None
    if not isinstance(reason, str):
        return None
    return "length" if reason in ("max_output_tokens", "max_messages") else reason


def _object(data: bytes) -> dict[str, Any] | None:
    try:
        value = read_json(data)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _reported(value: dict[str, Any] | None, secrets: tuple[str, ...]) -> Failure:
    """The error that a frame reports, in any of the spellings that are about."""
    error = None if value is None else value.get("error") or value
    return failures.error_frame({"message": error} if isinstance(error, str) else error, secrets)
