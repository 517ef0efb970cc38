"""What a worker waits for beside its connections when it is asked to stop."""

from __future__ import annotations

import time
from typing import Any

import gevent
import pytest
from gevent.event import Event as Signal

from sseflask.transport.gunicorn import drain as module
from sseflask.transport.gunicorn.drain import Drain

SECONDS = 10.0


class Work:
    """Some of it, that is done when a test says so."""

    def __init__(self, done: bool = False) -> None:
        self.interrupted = 0
        self.taking = True
        self.done = Signal()
        self.waited: list[float] = []
        if done:
            self.done.set()

    def take_no_more(self) -> None:
        self.taking = False

    def interrupt(self) -> None:
        self.interrupted += 1

    def wait_until_done(self, seconds: float) -> bool:
        self.waited.append(seconds)
        return bool(self.done.wait(seconds))


class Streams:
    """Detached streams that end when a test says so, and in which order things were asked."""

    streams = 1

    def __init__(self, work: Work) -> None:
        self.asked: list[str] = []
        self.work = work
        self.empty = Signal()

    def drain(self) -> None:
        self.asked.append("drain")

    def wait_until_empty(self, seconds: float) -> bool:
        self.asked.append(f"wait, interrupted {self.work.interrupted} times")
        return bool(self.empty.wait(seconds))

    def fail_rest(self) -> None:
        self.asked.append("fail")

    def abort(self) -> None:
        self.asked.append("abort")


def drain_of(*work: Work, detached: Any = None) -> Drain:
    drain = Drain()
    drain.background += work
    drain.detached = detached
    return drain


def test_work_goes_on_within_the_grace_time() -> None:
    work = Work()
    drain = drain_of(work)
    drain.begin(60.0)
    assert drain.draining
    assert not work.taking, "what it inherits now it would soon pass on again"
    assert work.interrupted == 0
    assert not drain.wait_for_rest(time.monotonic() + 0.01)
    gevent.spawn_later(0.01, work.done.set)
    assert drain.wait_for_rest(time.monotonic() + SECONDS)
    assert work.interrupted == 0


def test_shortly_before_its_end_work_is_interrupted_and_its_streams_get_their_last_events(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_MARGIN_SECONDS", 0.0)
    work = Work()
    streams = Streams(work)
    drain = drain_of(work, detached=streams)
    drain.begin(0.01)
    gevent.spawn_later(0.05, streams.empty.set)
    until_cut(streams)
    assert streams.asked == [
        "drain",
        "wait, interrupted 1 times",
        "fail",
        "wait, interrupted 1 times",
        "abort",
    ]


def until_cut(streams: Streams) -> None:
    with gevent.Timeout(SECONDS):
        while "abort" not in streams.asked:
            gevent.sleep(0.005)


def test_without_a_grace_time_that_begins_at_once() -> None:
    streams = Streams(Work(done=True))
    streams.empty.set()
    drain = drain_of(streams.work, detached=streams)
    drain.begin(0)
    assert streams.work.interrupted == 1
    until_cut(streams)
    assert [each for each in streams.asked if "wait" not in each] == ["drain", "fail", "abort"]


def test_streams_that_take_nothing_are_cut_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LAST_EVENTS_SECONDS", 0.01)
    monkeypatch.setattr(module, "_FAILURE_SECONDS", 0.01)
    streams = Streams(Work())
    drain_of(streams.work, detached=streams)._end_the_rest()
    assert streams.asked[-2:] == ["wait, interrupted 1 times", "abort"]


def test_without_work_nobody_waits_for_last_events() -> None:
    streams = Streams(Work())
    streams.empty.set()
    drain_of(detached=streams)._end_the_rest()
    assert streams.asked == ["fail", "wait, interrupted 0 times", "abort"]


def test_at_once_work_is_interrupted_at_once_and_waited_for() -> None:
    work, other = Work(), Work(done=True)
    drain = drain_of(work, other)
    gevent.spawn_later(0.02, work.done.set)
    drain.end_now(SECONDS)
    assert work.done.is_set()
    assert work.interrupted == other.interrupted == 1


def test_all_have_to_be_done_by_the_same_time() -> None:
    first, second = Work(), Work(done=True)
    drain = drain_of(first, second)
    began = time.monotonic()
    assert not drain.wait_for_rest(began + 0.05)
    assert time.monotonic() - began < 1.0
    first.done.set()
    assert drain.wait_for_rest(began)
    assert second.waited == [0.0]
