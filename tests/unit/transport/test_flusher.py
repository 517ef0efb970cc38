"""When what streams have buffered is sent."""

from __future__ import annotations

import math
import time
from typing import Any

import gevent
import pytest

from sseflask.transport import flusher as flushers
from sseflask.transport.event_loop import WaitHook
from sseflask.transport.flusher import LONG_COMPUTATION, SLICE_SECONDS, Flusher
from tests.unit.transport.test_event_loop import turns, without_hooks


class Writer:
    """Counts how often it was flushed."""

    def __init__(self) -> None:
        self.flushes = 0

    def flush(self, _now: float) -> None:
        self.flushes += 1


def added(flusher: Flusher, writer: Any) -> float:
    """For how long a generator may go on before what it has buffered is sent."""
    now = time.monotonic()
    flusher.add(writer, now)
    return flusher.deadline - now


def test_it_is_sent_when_the_loop_is_about_to_wait() -> None:
    flusher, writer = Flusher(), Writer()
    turns(5)
    assert added(flusher, writer) == pytest.approx(SLICE_SECONDS)
    turns(1)
    assert writer.flushes == 1
    assert flusher.deadline == math.inf


def test_items_wait_until_the_loop_does_or_for_a_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    flusher, writers = Flusher(), (Writer(), Writer())
    turns(5)
    now = time.monotonic()
    times = [now, now + SLICE_SECONDS]
    monkeypatch.setattr(time, "monotonic", lambda: times.pop(0) if times else now)
    given: Any = writers
    assert [flusher.take(writer, {}) for writer in given] == [False, True]
    monkeypatch.undo()
    turns(1)
    assert [writer.flushes for writer in writers] == [1, 1]


def test_a_long_computation_before_an_item_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    flusher = Flusher()
    writer: Any = Writer()

    def stream() -> None:
        flusher.computations.begin(time.monotonic())
        until = time.monotonic() + 5 * LONG_COMPUTATION
        while time.monotonic() < until:
            pass
        flusher.take(writer, {"PATH_INFO": "/a"})

    gevent.spawn(stream).get()
    assert "ms of computation before an event of '/a'" in caplog.text


def test_in_the_first_turns_every_event_is_sent_at_once() -> None:
    flusher, writer = Flusher(), Writer()
    assert added(flusher, writer) == 0.0
    turns(2)
    assert writer.flushes == 1


def test_with_a_loop_of_another_order_every_event_is_sent_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(flushers, "WaitHook", lambda callback: WaitHook(callback, priority=0))
    flusher, writer = Flusher(), Writer()
    turns(30)
    assert added(flusher, writer) == 0.0
    turns(2)
    assert writer.flushes == 1


def test_without_a_hook_it_is_sent_by_a_callback(monkeypatch: pytest.MonkeyPatch) -> None:
    hook = without_hooks(monkeypatch)
    monkeypatch.setattr(flushers, "WaitHook", lambda _callback: hook)
    flusher, writer = Flusher(), Writer()
    turns(5)
    assert added(flusher, writer) == 0.0
    turns(2)
    assert writer.flushes == 1
