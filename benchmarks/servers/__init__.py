"""One file a stack: `STACK` says how it starts, the rest is an app as its authors write it.

A new stack is a new file here; its name is the name on the command line.
"""

from __future__ import annotations

import importlib
import pkgutil

from benchmarks.stack import Stack


def names() -> list[str]:
    """Give the names of all stacks, whether or not what they need is installed."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> Stack:
    """Give a stack by its name; ImportError where something that it needs is not installed."""
    stack = importlib.import_module(f"{__name__}.{name}").STACK
    if not isinstance(stack, Stack):
        raise TypeError(f"benchmarks/servers/{name}.py: STACK is not a Stack")
    return stack
