"""Waiting for a condition, with a deadline, instead of sleeping for a guess."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")


def until(
    condition: Callable[[], Value], what: str, *, seconds: float = 15.0, pause: float = 0.02
) -> Value:
    """Ask again and again until the answer is true.

    Args:
        condition: asked every ``pause`` seconds.
        what: what is awaited, for the failure's message.
        seconds: the deadline; generous, as only a failing test waits for all of it.

    Returns:
        the first true answer.

    Raises:
        AssertionError: the deadline passed.
    """
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"after {seconds} s still not: {what} (last answer: {answer!r})")
        time.sleep(pause)


def settled(
    measure: Callable[[], Value], what: str, *, pause: float, seconds: float = 20.0
) -> Value:
    """Wait until two measurements ``pause`` seconds apart are equal; returns the value."""
    last = [measure()]

    def unchanged() -> bool:
        before, last[0] = last[0], measure()
        return before == last[0]

    time.sleep(pause)
    until(unchanged, what, seconds=seconds, pause=pause)
    return last[0]
