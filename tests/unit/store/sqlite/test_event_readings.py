"""Readings share the store's thread: equal ones are done once, appends come first."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sseflask.store.api import (
    Append,
    Appended,
    EventLimits,
    History,
    HistoryQuery,
    KeyReused,
    StoreError,
)
from sseflask.store.names import Pattern
from sseflask.store.sqlite.event_database import EventDatabase
from sseflask.store.sqlite.event_readings import Readings
from sseflask.store.sqlite.pattern_channels import Steps
from tests.live.kit.waiting import until
from tests.unit.store.sqlite.test_event_store import DAY, running


class Slow(EventDatabase):
    """A store that takes many steps; notes what is done in which order."""

    def __init__(self, steps: int, done: list[str]) -> None:
        super().__init__(":memory:", EventLimits(100, DAY))
        self.steps = steps
        self.done = done

    def append(self, appends: Sequence[Append]) -> list[Appended | KeyReused]:
        self.done.append("append")
        return super().append(appends)

    def history(self, query: HistoryQuery) -> Steps[History]:
        for _ in range(self.steps):
            self.done.append(str(query.after))
            yield
        return (yield from super().history(query))


def asked(after: int, *names: str) -> HistoryQuery:
    return HistoryQuery(tuple(Pattern.parse(name) for name in names or ("**",)), after, 10)


def test_equal_ones_are_read_once_and_all_are_answered() -> None:
    done: list[str] = []
    answers: list[Any] = []
    gate = threading.Event()
    with running(None, database=lambda *_: Slow(3, done)) as own:
        own.put("a", b"1", b"2")
        own.store.submit(lambda _: gate.wait(30), lambda *_: None)
        for _ in range(300):
            own.store.submit(asked(1), lambda *answer: answers.append(answer))
        own.store.submit(asked(0), lambda *answer: answers.append(answer))
        gate.set()
        until(lambda: len(answers) == 301, "all are answered")
        assert done == ["append", "1", "0", "1", "0", "1", "0"]
    first = answers[0][0]
    assert [entry.number for entry in first.entries] == [2]
    assert sum(answer[0] is first for answer in answers) == 300


def test_appends_come_before_what_is_being_read() -> None:
    done: list[str] = []
    read = threading.Event()

    class Publishing(Slow):
        """Somebody publishes at every tenth step."""

        def history(self, query: HistoryQuery) -> Steps[History]:
            for step in super().history(query):
                if len(done) % 10 == 0:
                    own.store.submit(Append("a", (b"x",)), lambda *_: None)
                    done.append("published")
                yield step
            return History("", [], 0, [], 0)

    with running(None, database=lambda *_: Publishing(20, done)) as own:
        for after in range(50):
            own.store.submit(asked(after), lambda *_: None)
        own.store.submit(asked(50), lambda *_: read.set())
        assert read.wait(60)
    published = [place for place, what in enumerate(done) if what == "published"]
    assert len(published) > 50
    assert {done[place + 1] for place in published} == {"append"}


def test_one_that_has_begun_is_not_shared_as_it_may_lack_what_came_since() -> None:
    answers: list[History] = []

    def done(history: History, _error: Exception | None) -> None:
        answers.append(history)

    with running(None, database=lambda *_: Slow(1, [])) as own:
        own.put("a", b"1")

        def read_twice(database: EventDatabase) -> None:
            """In the store's thread, so that nothing comes in between."""
            readings = Readings(lambda: 0.0)  # a clock that stands: no pause between steps
            readings.add(asked(0), done)
            readings.step(database)
            readings.add(asked(0), done)
            for _ in range(10):
                readings.step(database)

        own.ask(read_twice)
    first, second = answers
    assert first is not second
    assert first == second


def test_what_many_read_takes_a_part_of_the_time() -> None:
    class Busy:
        def history(self, *_: object) -> Steps[History]:
            while True:
                now[0] += 0.002
                yield

    now = [100.0]
    readings = Readings(clock=lambda: now[0])
    for after in range(10):
        readings.add(asked(after), lambda *_: None)
    paused = 0.0
    for _ in range(1000):
        due = readings.due
        assert due is not None
        if due > now[0]:
            paused += due - now[0]
            now[0] = due
        readings.step(Busy())  # type: ignore[arg-type]  # all that is asked of it
    assert paused == pytest.approx(1000 * 0.002 / 2, rel=0.1)


def test_a_store_that_is_replaced_while_it_is_read_is_read_from_the_beginning(path: Path) -> None:
    steps: list[int] = []

    class Counted(EventDatabase):
        def history(self, query: HistoryQuery) -> Steps[History]:
            steps.append(0)
            yield
            if len(steps) == 1:
                path.unlink()
            for _ in range(10**6 if len(steps) == 1 else 0):
                yield
            return (yield from super().history(query))

    with running(path, keep=10, database=Counted) as own:
        own.put("a", b"old")
        assert own.read(0).entries == []
        assert len(steps) == 2
        assert own.put("a", b"new") == Appended(1, 1)


def test_a_reading_that_fails_is_reported_and_others_go_on() -> None:
    class Failing(EventDatabase):
        def history(self, query: HistoryQuery) -> Steps[History]:
            yield
            if query.after == 7:
                raise StoreError("the disk is gone")
            return (yield from super().history(query))

    with running(None, keep=10, database=Failing) as own:
        own.put("a", b"1")
        with pytest.raises(StoreError, match="the disk is gone"):
            own.read(7)
        assert len(own.read(0).entries) == 1


def test_what_is_being_read_at_the_end_is_refused() -> None:
    answers: list[Any] = []
    with running(None, database=lambda *_: Slow(10**9, [])) as own:
        own.put("a", b"1")
        own.store.submit(asked(0), lambda *answer: answers.append(answer))
        own.end()
        own.store.submit(asked(0), lambda *answer: answers.append(answer))
    for history, error in answers:
        assert history is None
        assert isinstance(error, StoreError)
    assert len(answers) == 2


def test_a_store_that_is_not_open_refuses(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with running(tmp_path / "file" / "store.db") as own, pytest.raises(StoreError, match="opened"):
        own.read(0)
