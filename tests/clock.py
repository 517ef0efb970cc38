"""A clock for tests."""

from __future__ import annotations


class Clock:
    """It stands still until a test puts it forward, or back."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now
