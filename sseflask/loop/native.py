"""The standard library's own functions, for native threads beside gevent's loop. No I/O."""

from __future__ import annotations

import importlib
import sys
from typing import Any


def original(module: str, name: str) -> Any:
    """What the standard library has under a name, whether or not gevent has replaced it."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None:
        return monkey.get_original(module, name)
    return getattr(importlib.import_module(module), name)


def lock() -> Any:
    """Make a native lock, see `sseflask.loop`: nothing blocks or switches while it is held."""
    return original("_thread", "allocate_lock")()


def rlock() -> Any:
    """Make a native lock that its owner may take again; see `lock`."""
    return original("_thread", "RLock")()
