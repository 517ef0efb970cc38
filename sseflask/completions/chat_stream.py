"""Follows a stream of Chat Completions to its end. No I/O."""

from __future__ import annotations

from typing import Any

from pydantic_core import from_json

from sseflask.completions.frame_errors import (
    bare_error,
    content_beside_error,
    error_of_choice,
    is_error,
    not_an_object,
)
from sseflask.completions.frame_splitter import CR, fields, repaired, stripped
from sseflask.completions.json_values import dict_or_empty
from sseflask.completions.outcome import CompletionOutcome
from sseflask.completions.stream_parser import DONE, End, StreamParser
from sseflask.completions.upstream_errors import reported
from sseflask.errors import Failure

__all__ = ["ChatParser"]

#: Seconds of silence after the finish reason: for the usage, ...
_REST_SECONDS = 10.0
#: ... for the end, once the usage has come in a chunk of its own, which is the last one, ...
_LAST_SECONDS = 3.0
#: ... and after tool calls: the server may make them itself, and go on.
_CALLS_SECONDS = 30.0
_CALLING = ("tool_calls", "function_call")
#: What some servers write in place of ``null``.
_NO_REASON = ("null", "none")


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
                    if (failure := bare_error(frame, self._secrets)) is not None:
                        return relayed, failure
                    continue
                if data.startswith(DONE):
                    return relayed, self._complete()
                frame, value = repaired(stripped(frame), data)
                if event == b"error" and value is not None:
                    return relayed, reported(value, self._secrets)
            if value is None:
                return relayed, not_an_object(frame, self._secrets)
            if value.get("error") or "x_groq" in value:
                failure = self._error_beside_choices(value)
                if failure is not None:
                    return [*relayed, *content_beside_error(value)], failure
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
                    relayed += content_beside_error(value)
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
        if complete or (fields(rest)[1] or b"").startswith(DONE):
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
                self._failure = reported(error_of_choice(choice), self._secrets)
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
