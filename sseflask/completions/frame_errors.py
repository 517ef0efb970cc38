"""Errors in frames and documents, in all the places where upstreams put them. No I/O."""

from __future__ import annotations

import json
from typing import Any

from sseflask.completions.error_messages import reason, value_of
from sseflask.completions.failures import masked
from sseflask.completions.frame_splitter import data_frame, fields
from sseflask.completions.json_values import dict_or_empty, dicts, list_or_empty
from sseflask.completions.upstream_errors import invalid, reported
from sseflask.errors import Failure

__all__ = [
    "bare_error",
    "content_beside_error",
    "error_of_choice",
    "error_of_choices",
    "is_error",
    "not_an_object",
    "without_secrets",
]

#: Fields of an error that has no ``error`` around it.
_MESSAGES = ("detail", "errors", "message", "msg", "error_msg", "error_message", "fault")


def is_error(value: Any) -> bool:
    """Whether a value of JSON that is no completion is an error, in any of the known shapes."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        return bool(value[0].get("error"))
    value = dict_or_empty(value)
    if value.get("error") or value.get("object") == "error" or value.get("type") == "error":
        return True
    if "usage" in value or "object" in value:
        return False
    return any(name in value for name in _MESSAGES) and bool(reason(value))


def error_of_choice(choice: dict[str, Any]) -> Any:
    """The error of a choice whose finish reason is ``error`` (OpenRouter)."""
    return choice.get("error") or {"message": "The upstream ended its answer with an error."}


def error_of_choices(value: Any) -> Any:
    """The error of a document whose choices have nothing else; ``None`` for all others."""
    choices = list_or_empty(dict_or_empty(value).get("choices"))
    errors = [dict_or_empty(each).get("error") for each in choices]
    if not errors or not all(errors) or any(map(_has_content, choices)):
        return None
    return errors[0]


def content_beside_error(value: dict[str, Any]) -> list[bytes]:
    """The frame of what a chunk has beside its error, if that is anything.

    Without the error, in which there may be a key.
    """
    choices = [
        {name: choice[name] for name in choice if name != "error"}
        for choice in dicts(value.get("choices"))
    ]
    if not value.get("usage") and not any(map(_has_content, choices)):
        return []
    rest = {name: value[name] for name in value if name not in ("error", "x_groq")}
    return [data_frame({**rest, "choices": choices})]


def without_secrets(value: dict[str, Any], secrets: tuple[str, ...]) -> bytes | None:
    """A document with secrets masked in its choices' errors; ``None`` if there were none."""
    choices = list_or_empty(value.get("choices"))
    safe = [
        {**each, "error": masked(each["error"], secrets)}
        if dict_or_empty(each).get("error")
        else each
        for each in choices
    ]
    return None if safe == choices else json.dumps({**value, "choices": safe}).encode()


def _has_content(choice: dict[str, Any]) -> bool:
    delta = dict_or_empty(choice.get("delta") or choice.get("message"))
    return bool(choice.get("text")) or any(delta[name] for name in delta if name != "role")


def not_an_object(frame: bytes, secrets: tuple[str, ...]) -> Failure:
    """The failure of a frame whose data is no JSON object."""
    event, data = fields(frame)
    text = (data or b"").decode(errors="replace")
    if event == b"error":
        return reported(value_of(text) or text, secrets)
    return invalid("an event of it is not a JSON object", text, secrets)


def bare_error(frame: bytes, secrets: tuple[str, ...]) -> Failure | None:
    """The error of a frame without data: bare JSON, or llama.cpp's field ``error``."""
    text = frame.removeprefix(b"error:").decode(errors="replace").strip()
    if frame.startswith(b"error:"):
        return reported(value_of(text) or text, secrets)
    value = value_of(text) if frame.startswith(b"{") else None
    return reported(value, secrets) if is_error(value) else None
