"""Values of JSON that upstreams have sent, and that may be of any type. No I/O."""

from __future__ import annotations

from typing import Any


def text_or_empty(value: Any) -> str:
    return value if isinstance(value, str) else ""


def dict_or_empty(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def list_or_empty(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def dicts(value: Any) -> list[dict[str, Any]]:
    """The objects in the value if it is a list; else nothing."""
    return [each for each in list_or_empty(value) if isinstance(each, dict)]
