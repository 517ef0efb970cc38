"""Warnings that a process logs once: they would be true of every request."""

from __future__ import annotations

import logging
from typing import Any

log = logging.getLogger("sseflask")

_warned: set[str] = set()


def warn_once(message: str) -> None:
    """Warn, unless this process has done so with the same message."""
    if message not in _warned:
        _warned.add(message)
        log.warning(message)


def name_of(function: Any) -> str:
    """The qualified name of a callable, as far as it is known."""
    function = getattr(function, "func", function)  # of a functools.partial
    module = getattr(function, "__module__", None) or type(function).__module__
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return f"{module}.{name}"
