"""The two APIs that completions are streamed by: which frames of theirs end an answer. No I/O."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Protocol

from pydantic_core import from_json

from sseflask.completions import failures
from sseflask.completions.frames import CR, fields, read_json, relayed
from sseflask.completions.outcome import Outcome
from sseflask.completions.reasons import reason, value_of
from sseflask.completions.response_parts import is_call
from sseflask.completions.upstream_errors import reported, unfit
from sseflask.errors import Failure

__all__ = ["CHAT", "RESPONSES", "Answer", "End", "answer", "dialect_of", "is_error"]

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
#: The end of Chat Completions; some servers write it as JSON.
_DONE = (b"[DONE]", b'"[DONE]"')
_NO_OBJECT = "an event of it is not a JSON object"
#: What some servers spell out in place of ``null``.
_NO_REASON = ("null", "none")
#: What an error has at its top that is told without ``error``.
_TELLING = ("detail", "errors", "message", "msg", "error_msg", "error_message", "fault")


class Answer(Protocol):
    """Follows the frames of one streamed answer to its end. Not thread-safe, never blocks.

    Attributes:
        begun: something of it has been relayed.
        complete: nothing of it is missing, but perhaps its usage; its end need not be waited for.
    """

    begun: bool
    complete: bool

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
        self.begun = self.complete = False
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
                    value = from_json(frame[6:])
                except ValueError:
                    frame, value = _mended(frame, frame[6:])
            elif frame.startswith(b":") and frame.find(b"\n") == len(frame) - 2:
                continue
            else:
                event, data = fields(frame)
                if not data or data == b"null":
                    if (failure := _stray(frame, self._secrets)) is not None:
                        return kept, failure
                    continue
                if data.startswith(_DONE):
                    return kept, self._complete()
                frame, value = _mended(relayed(frame), data)
                if event == b"error" and value is not None:
                    return kept, reported(value, self._secrets)
            if value is None:
                return kept, _no_object(frame, self._secrets)
            if value.get("error"):
                return kept, reported(value, self._secrets)
            choices = value.get("choices")
            if isinstance(choices, list):
                for choice in choices:
                    if isinstance(choice, dict):
                        if several:
                            self._seen.add(str(choice.get("index")))
                        if choice.get("finish_reason"):
                            self._note(choice)
            elif choices is None and is_error(value):
                return kept, reported(value, self._secrets)
            kept.append(frame)
        return kept, None

    def rest(self, rest: bytes) -> End:
        if (fields(rest)[1] or b"").startswith(_DONE):
            return self._complete()
        if self._finished and self._seen <= self._finished:
            return self._complete()
        return _stray(rest, self._secrets) or failures.broken_off()

    def _note(self, choice: dict[str, Any]) -> None:
        reason = choice["finish_reason"]
        if isinstance(reason, str) and reason.lower() not in _NO_REASON:
            if not self._finished or not choice.get("index"):
                self._reason = reason
            self._finished.add(str(choice.get("index")))
            self.complete = len(self._finished) >= self._choices

    def _complete(self) -> Outcome:
        return Outcome("finished", self._reason)


class _Responses:
    """Ends with one of four events, which is relayed as the end."""

    def __init__(self, secrets: tuple[str, ...]) -> None:
        self.begun = self.complete = False
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
                    if (failure := _stray(frame, self._secrets)) is not None:
                        return kept, failure
                    continue
                data = found
                if data.startswith(_DONE):
                    return kept, failures.broken_off()
                frame = relayed(frame)
            try:
                value: Any = from_json(data)
            except ValueError:
                frame, value = _mended(frame, data)
            if not isinstance(value, dict):
                return kept, _no_object(frame, self._secrets)
            kind = value.get("type")
            if not isinstance(kind, str):
                kind = fields(frame)[0].decode(errors="replace")
            if kind in _ENDS:
                return kept, self._end(kind, value, frame)
            if (not kind or "." not in kind) and is_error(value):
                return kept, reported(value, self._secrets)
            if not self._calls and "_call" in kind:
                self._calls = kind.startswith(_CALLS)
            elif kind.startswith("response.output_item."):
                self._calls = self._calls or is_call(value.get("item"))
            kept.append(frame)
        return kept, None

    def rest(self, rest: bytes) -> End:
        return _stray(rest, self._secrets) or failures.broken_off()

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
        failure = reported(error, self._secrets)
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


def _mended(frame: bytes, data: bytes) -> tuple[bytes, dict[str, Any] | None]:
    """A frame and its object, also one that is not quite JSON: with halves of surrogate pairs.

    What is no UTF-8 becomes marks, as for a reader in JavaScript.
    """
    value = _object(data)
    if value is None:
        value = _object(data.decode(errors="replace").encode())
        frame = frame.decode(errors="replace").encode()
    return frame, value


def _no_object(frame: bytes, secrets: tuple[str, ...]) -> Failure:
    event, data = fields(frame)
    text = (data or b"").decode(errors="replace")
    if event == b"error":
        return reported(value_of(text) or text, secrets)
    return unfit(_NO_OBJECT, text, secrets)


def _stray(frame: bytes, secrets: tuple[str, ...]) -> Failure | None:
    """The error that a frame without data tells: bare JSON, or llama.cpp's field ``error``."""
    named = frame.startswith(b"error:")
    if not named and not frame.startswith(b"{"):
        return None
    text = frame.removeprefix(b"error:").decode(errors="replace").strip()
    value = value_of(text)
    if named:
        return reported(value or text, secrets)
    return reported(value, secrets) if isinstance(value, dict) and is_error(value) else None


def is_error(value: dict[str, Any]) -> bool:
    """Whether an object that is no answer tells an error, in any of the shapes that are about."""
    if value.get("error") or value.get("object") == "error" or value.get("type") == "error":
        return True
    if "usage" in value or "object" in value:
        return False
    return any(name in value for name in _TELLING) and bool(reason(value))
