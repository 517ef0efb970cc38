"""The thread of the run log: what it passes on of runs, and when others are rung."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sseflask.completions.outcome import Outcome
from sseflask.loop.callbacks import Done, wait_for_callback
from sseflask.store.api import StoreError
from sseflask.store.run_api import Append, Run
from sseflask.store.sqlite import leases as run_peers
from sseflask.store.sqlite import thread as module
from sseflask.store.sqlite.run_thread import RunThread
from sseflask.store.sqlite.runs import RunLog
from sseflask.store.sqlite.wakeup import WakeupSocket
from tests.contract.run_stores import DAY, FINISHED, STOPPED, fresh, outcome_of, told
from tests.live.kit.waiting import until

SECONDS = 10.0


class Recorded:
    """A thread of the run log, and everything that it said."""

    def __init__(self, path: Path, seconds: float = DAY) -> None:
        self.said: list[tuple[Any, ...]] = []
        self.beats = 0
        self.thread = RunThread(
            lambda: RunLog(str(path), seconds=seconds, clock=time.monotonic),
            WakeupSocket(str(path)),
            frames=lambda *what: self.said.append(("frames", *what)),
            ended=lambda run: self.said.append(("ended", run.number, outcome_of(run).kind)),
            lost=lambda number: self.said.append(("lost", number)),
            beat=self.beat,
        )

    def beat(self) -> None:
        self.beats += 1

    def wait(self, start: Callable[[Done], None]) -> Any:
        return wait_for_callback(start, SECONDS)

    def begin(self) -> Run:
        run, repeated = self.wait(partial(self.thread.claim, fresh()))
        assert not repeated
        assert isinstance(run, Run)
        return run

    def put(self, run: Run, first: int, amount: int, outcome: Outcome | None = None) -> Run | None:
        append = Append(run.number, first, told(first, amount), outcome)
        (result,) = self.wait(partial(self.thread.append, [append]))
        assert result is None or isinstance(result, Run)
        return result

    def attach(self, run: Run) -> Run | None:
        found = self.wait(partial(self.thread.attach, run.number))
        assert found is None or isinstance(found, Run)
        return found

    def frames_of(self, run: Run) -> list[tuple[int, bytes]]:
        return [
            numbered
            for what, number, *more in self.said
            if what == "frames" and number == run.number
            for numbered in enumerate(more[1], more[0])
        ]

    def ends_of(self, run: Run) -> list[str]:
        return [said[2] for said in self.said if said[:2] == ("ended", run.number)]


@contextmanager
def running(path: Path) -> Iterator[Recorded]:
    recorded = Recorded(path)
    try:
        yield recorded
    finally:
        recorded.thread.close()
        assert recorded.thread.join(SECONDS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest.fixture
def own(path: Path) -> Iterator[Recorded]:
    with running(path) as own:
        yield own


@pytest.fixture
def other(path: Path) -> Iterator[Recorded]:
    with running(path) as other:
        yield other


def test_what_it_writes_itself_is_told_by_the_append_alone(own: Recorded) -> None:
    run = own.begin()
    assert own.put(run, 1, 3) is not None
    assert own.said == []
    assert own.put(run, 4, 1, FINISHED) is not None
    until(lambda: own.said, "the end is told")
    assert own.put(run, 5, 1) is None
    assert own.said == [("ended", run.number, "finished")]


def test_who_attaches_is_told_what_comes_from_there_on(own: Recorded, other: Recorded) -> None:
    run = own.begin()
    own.put(run, 1, 3)
    attached = other.attach(run)
    assert attached is not None
    assert attached.last == 3
    own.put(run, 4, 600)
    own.put(run, 604, 1, FINISHED)
    until(lambda: other.ends_of(run), "the end is there")
    assert other.frames_of(run) == list(enumerate(told(4, 601), 4))
    assert other.said[-1] == ("ended", run.number, "finished")


def test_who_attaches_again_gets_all_up_to_there_before(own: Recorded, other: Recorded) -> None:
    run = own.begin()
    other.attach(run)
    own.put(run, 1, 3)
    again = other.attach(run)
    assert again is not None
    assert other.frames_of(run) == list(enumerate(told(1, again.last), 1))


def test_others_are_rung_as_long_as_they_watch(
    own: Recorded, other: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has to look for himself, which takes a quarter of a second."""
    monkeypatch.setattr(module, "LOOK_SECONDS", 60.0)
    run, unseen = own.begin(), own.begin()
    # Until its writer knows it is told by the end of its look at what is there.
    other.attach(run)
    for number in range(1, 20):
        own.put(run, number, 1)
        until(lambda number=number: len(other.frames_of(run)) >= number, "rung", pause=0.001)  # type: ignore[misc]  # mypy knows no default of a lambda
    own.put(unseen, 1, 1)
    own.put(run, 20, 0, FINISHED)
    until(lambda: other.ends_of(run), "rung at the end")
    assert other.frames_of(unseen) == []


def test_who_lets_it_be_is_told_no_more(own: Recorded, other: Recorded) -> None:
    run = own.begin()
    other.attach(run)
    own.put(run, 1, 1)
    until(lambda: other.frames_of(run), "it follows")
    other.wait(partial(other.thread.let_be, run.number))
    before = list(other.said)
    own.put(run, 2, 1, FINISHED)
    other.wait(lambda done: other.thread.submit(lambda _: None, done))
    assert other.said == before
    assert not own.wait(lambda done: own.thread.submit(RunLog.watched_by_others, done))
    # Its own runs are followed all the same.
    mine = other.begin()
    other.wait(partial(other.thread.let_be, mine.number))
    other.put(mine, 1, 0, FINISHED)
    until(lambda: other.ends_of(mine), "its own end is told")


def test_an_end_by_anybody_is_told_to_all_once(own: Recorded, other: Recorded) -> None:
    run = own.begin()
    own.put(run, 1, 2)
    other.attach(run)
    for each in (other, own, other):
        ended = each.wait(partial(each.thread.end, run.number, STOPPED))
        assert outcome_of(ended).kind == "stopped"
    until(lambda: own.ends_of(run) and other.ends_of(run), "both are told")
    assert own.put(run, 3, 1) is None
    for each in (own, other):
        each.wait(lambda done, each=each: each.thread.submit(lambda _: None, done))  # type: ignore[misc]  # mypy knows no default of a lambda
        assert each.ends_of(run) == ["stopped"]


def test_who_goes_ends_its_own(own: Recorded, other: Recorded) -> None:
    run, others = own.begin(), other.begin()
    other.attach(run)
    own.wait(own.thread.leave)
    assert own.ends_of(run) == ["failed"]
    until(lambda: other.ends_of(run), "the other is told")
    assert other.put(others, 1, 1) is not None


def test_the_runs_of_one_that_stands_still_are_ended_by_another(
    own: Recorded, other: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_peers, "DEAD_SECONDS", 1.5)
    run = own.begin()
    own.put(run, 1, 2)
    other.attach(run)
    gate, reached = threading.Event(), threading.Event()

    def stand_still(_: RunLog) -> None:
        reached.set()
        gate.wait(30)

    own.thread.submit(stand_still, lambda *_: None)
    assert reached.wait(SECONDS)
    until(lambda: other.ends_of(run), "it has been ended")
    gate.set()
    assert own.put(run, 3, 1) is None
    until(lambda: own.ends_of(run), "its writer is told")
    assert own.ends_of(run) == other.ends_of(run) == ["failed"]
    assert own.put(own.begin(), 1, 1) is not None


def test_a_run_that_is_gone_is_told_as_lost(own: Recorded, path: Path) -> None:
    run = own.begin()
    path.unlink()
    until(lambda: own.said, "it is told")
    assert own.said == [("lost", run.number)]
    assert own.attach(run) is None


def test_runs_that_are_forgotten_while_they_are_followed(path: Path) -> None:
    log = RunLog(str(path), seconds=0.0, clock=time.monotonic)
    log.open()
    try:
        with running(path) as other:
            claimed = log.claim(fresh())
            assert isinstance(claimed, tuple)
            gate = threading.Event()
            other.attach(claimed[0])
            other.thread.submit(lambda _: gate.wait(30), lambda *_: None)
            log.end(claimed[0].number, STOPPED)
            until(log.trim, "it is forgotten")
            gate.set()
            until(lambda: other.said, "it is told")
            assert other.said == [("lost", claimed[0].number)]
    finally:
        log.close()


def test_a_beat_comes_by_itself_and_for_the_impatient_with_every_change(
    own: Recorded, other: Recorded
) -> None:
    until(lambda: own.beats >= 2, "some seconds pass")
    own.thread.impatient = True
    before = own.beats
    for number in range(1, 6):
        other.attach(own.begin())
        until(lambda number=number: own.beats >= before + number, "it is rung")  # type: ignore[misc]  # mypy knows no default of a lambda


def test_a_log_that_can_not_be_opened_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with running(tmp_path / "file" / "runs.db") as own:
        with pytest.raises(StoreError, match="run log"):
            own.begin()
        with pytest.raises(StoreError):
            own.wait(own.thread.leave)
