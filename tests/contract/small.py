"""Bounds so low that a handful of channels and events goes through every way of reading them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

from sseflask.store.sqlite import event_gaps as sqlite_missing
from sseflask.store.sqlite import event_history as sqlite_history
from sseflask.store.sqlite import pattern_channels as sqlite_patterns


@contextmanager
def small_steps(*, many: int = 2) -> Iterator[None]:
    """Have the log take steps of one or two.

    Args:
        many: the channels of a pattern that means more are not listed.
    """
    with ExitStack() as stack:
        for module, bounds in (
            (sqlite_history, {"_SCAN": 2, "_SCANS": 2, "MANY": many}),
            (sqlite_missing, {"_FEW": 2, "_CHANNELS": 1, "_WITH_EVENTS": 1}),
            (sqlite_patterns, {"_NAMES": 1, "_PATTERNS": 3, "MANY": many}),
        ):
            for name, bound in bounds.items():
                stack.enter_context(mock.patch.object(module, name, bound))
        yield
