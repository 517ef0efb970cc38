"""Frames that are not what their API says: almost JSON, errors in any place. No I/O."""

from __future__ import annotations

import json
from typing import Any

from sseflask.completions.error_messages import reason, value_of
from sseflask.completions.failures import masked
from sseflask.completions.frame_splitter import fields, is_json, read_json, without_nan
from sseflask.completions.upstream_errors import reported, unfit
from sseflask.errors import Failure

__all__ = [
    "error_of",
    "error_of_choices",
    "is_error",
    "mended",
    "no_object",
    "said_beside",
    "stray",
    "without_secrets",
]

_NO_OBJECT = "an event of it is not a JSON object"
#: What an error has at its top that is told without ``error``.
_TELLING = ("detail", "errors", "message", "msg", "error_msg", "error_message", "fault")


def _object(data: bytes) -> dict[str, Any] | None:
    try:
        value = read_json(data)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def mended(frame: bytes, data: bytes) -> tuple[bytes, dict[str, Any] | None]:
    """A frame and its object, also one that is not quite JSON: with halves of surrogate pairs.

    What is no UTF-8 becomes marks, as for a reader in JavaScript. NaN and Infinity, which can be in
    logprobs, become null: JavaScript would read nothing of such a frame.
    """
    value = _object(data)
    if value is None:
        value = _object(data.decode(errors="replace").encode())
        frame = frame.decode(errors="replace").encode()
    if value is not None and (b"NaN" in data or b"Infinity" in data) and not is_json(data):
        value = without_nan(value)
        event = fields(frame)[0]
        frame = (b"event: %b\n" % event if event else b"") + _frame(value)
    return frame, value


def _frame(value: Any) -> bytes:
    return b"data: %b\n\n" % json.dumps(value, separators=(",", ":")).encode()


def error_of(choice: dict[str, Any]) -> Any:
    """What a choice that ends in an error says of it (OpenRouter)."""
    return choice.get("error") or {"message": "The upstream ended its answer with an error."}


def said_beside(value: dict[str, Any]) -> list[bytes]:
    """The frame of what a chunk says beside its error, if that is anything.

    Without the error, in which there may be a key.
    """
    choices = value.get("choices")
    kept = [
        {name: choice[name] for name in choice if name != "error"}
        for choice in (choices if isinstance(choices, list) else [])
        if isinstance(choice, dict)
    ]
    if not value.get("usage") and not any(map(_says_something, kept)):
        return []
    rest = {name: value[name] for name in value if name not in ("error", "x_groq")}
    return [_frame({**rest, "choices": kept})]


def error_of_choices(value: dict[str, Any]) -> Any:
    """The error that is all that the choices of an answer in one piece say; else ``None``."""
    choices = value.get("choices")
    if not isinstance(choices, list):
        return None
    told = [each.get("error") if isinstance(each, dict) else None for each in choices]
    if not told or not all(told) or any(map(_says_something, choices)):
        return None
    return told[0]


def without_secrets(value: dict[str, Any], secrets: tuple[str, ...]) -> bytes | None:
    """An answer in one piece whose choices' errors had something to hide; ``None`` otherwise."""
    choices = value.get("choices")
    if not isinstance(choices, list):
        return None
    safe = [
        {**each, "error": masked(each["error"], secrets)}
        if isinstance(each, dict) and each.get("error")
        else each
        for each in choices
    ]
    if safe == choices:
        return None
    return json.dumps({**value, "choices": safe}).encode()


def _says_something(choice: dict[str, Any]) -> bool:
    if choice.get("text"):
        return True
    said = choice.get("delta") or choice.get("message")
    return isinstance(said, dict) and any(said[name] for name in said if name != "role")


def no_object(frame: bytes, secrets: tuple[str, ...]) -> Failure:
    event, data = fields(frame)
    text = (data or b"").decode(errors="replace")
    if event == b"error":
        return reported(value_of(text) or text, secrets)
    return unfit(_NO_OBJECT, text, secrets)


def stray(frame: bytes, secrets: tuple[str, ...]) -> Failure | None:
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
