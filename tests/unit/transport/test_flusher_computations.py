"""What the log says of computations that hold the loop, and of waiting, which does not."""

from __future__ import annotations

import time
from collections.abc import Callable

import gevent
import pytest

from sseflask.transport.flusher import LONG_COMPUTATION, LongComputations

LONG = 10 * LONG_COMPUTATION


def compute() -> None:
    until = time.monotonic() + LONG
    while time.monotonic() < until:
        pass


@pytest.mark.parametrize(
    ("between", "logged"),
    [
        ([lambda: gevent.sleep(LONG)], False),
        ([compute], True),
        ([lambda: gevent.sleep(LONG), compute], True),
    ],
    ids=["waits", "computes", "both"],
)
def test_only_what_held_the_loop_is_said(
    between: list[Callable[[], None]],
    logged: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def stream() -> None:
        """As in a request's greenlet, which the loop begins after its first look at watchers."""
        computations = LongComputations()
        computations.begin(time.monotonic())
        computations.check(time.monotonic(), {"PATH_INFO": "/a"})
        for each in between:
            each()
        computations.check(time.monotonic(), {"PATH_INFO": "/a"})

    gevent.spawn(stream).get()
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == logged
    if logged:
        milliseconds = float(lines[0].partition(" ")[0])
        # The loop's clock is off by as long as this process stood still when it was last set.
        assert LONG_COMPUTATION * 1000 <= milliseconds < LONG * 1000 + 1000
