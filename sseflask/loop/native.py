"""The standard library's own functions, for native threads beside gevent's loop. No I/O."""

from __future__ import annotations

import importlib
import sys
from typing import Any

__all__ = ["original"]


def original(module: str, name: str) -> Any:
    """What the standard library has under a name, whether or not gevent has put its own there."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None:
        return monkey.get_original(module, name)
    return getattr(importlib.import_module(module), name)
