"""What applications have begun in each of our workers, before anybody asks for it."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["on_worker_start"]

#: Called in the worker's main greenlet once its application has been loaded; must not block.
on_worker_start: list[Callable[[], object]] = []
