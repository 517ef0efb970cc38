"""What can happen between two steps: each moment is made by hand, a step at a time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sseflask.completions.dialects import CHAT
from sseflask.completions.formats import FORMATS
from sseflask.errors import Failure
from sseflask.event import MessageEvent
from sseflask.runs import process as run_process
from sseflask.runs.outcome import Generated
from sseflask.runs.runs import Beginning, Started
from sseflask.runs.viewer import Viewer
from sseflask.runs.writer import Terms
from sseflask.store import catch_up
from sseflask.store.api import StoreBusy, StoreError
from sseflask.store.sqlite.leases import Leases
from sseflask.store.sqlite.run_database import RunDatabase
from sseflask.transport.detached.group import DetachedStream
from sseflask.wire import Decoder
from tests.clock import Clock
from tests.unit.runs.stepped import Stepped, stepped
from tests.unit.store.sqlite.run_databases import (
    FINISHED,
    STOPPED,
    append_of,
    code_of,
    frames_of,
    now,
    opened,
    outcome_of,
)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[RunDatabase]:
    """What a test itself sees of the log."""
    with opened(tmp_path / "runs.db", clock=clock) as store:
        yield store


@pytest.fixture
def make(tmp_path: Path, clock: Clock) -> Iterator[Callable[[], Stepped]]:
    made: list[Stepped] = []

    def make() -> Stepped:
        def nobody(*_: object) -> None:
            raise AssertionError("no stream is detached here")

        made.append(Stepped(tmp_path / "runs.db", clock, nobody, nobody))
        return made[-1]

    with stepped():
        yield make
    for each in made:
        each.close()


@pytest.fixture
def one(make: Callable[[], Stepped]) -> Stepped:
    return make()


@pytest.fixture
def other(make: Callable[[], Stepped]) -> Stepped:
    return make()


def fail(*_: object) -> None:
    raise StoreError("locked")


def nothing() -> Generated:
    yield FINISHED


def start(
    process: Stepped,
    answer: Callable[[], Generated] = nothing,
    *,
    key: str | None = None,
    alone_seconds: float = math.inf,
) -> Started:
    started = process.runs.start(
        lambda _: answer(),
        Beginning(
            subject="alice",
            account="alice",
            label=CHAT,
            terms=Terms(
                alone_seconds, process.runs.bounds.max_run_bytes, process.runs.bounds.run_seconds
            ),
            key=key,
        ),
        FORMATS["chunks"],
    )
    assert isinstance(started, Started)
    return started


def all_of(viewer: Viewer) -> list[MessageEvent]:
    """All that is there for a viewer."""
    decoder, events = Decoder(), list[MessageEvent]()
    for body in viewer.history():
        events += decoder.feed(body)
    return events


def write(process: Stepped, started: Started, first: int, amount: int, end: bool = False) -> None:
    outcome = FINISHED if end else None
    process.store.append(append_of(started.run.key, first, frames_of(first, amount), outcome))


def go_on(*processes: Stepped) -> None:
    for _ in range(2):
        for process in processes:
            process.settle()
            process.store.look()
            process.settle()


def test_a_repetition_that_comes_before_the_first_has_begun_to_write(one: Stepped) -> None:
    repeated: list[Viewer] = []

    def answer() -> Generated:
        again = start(one, key="k")
        assert again.repeated
        assert all_of(again.viewer) == []
        repeated.append(again.viewer)
        return nothing()

    started = start(one, answer, key="k")
    write(one, started, 1, 2, end=True)
    go_on(one)
    for viewer in (started.viewer, *repeated):
        assert [event.data[-6:] for event in all_of(viewer)][-1] == "[DONE]"
        assert viewer.ended
    assert one.live_runs._runs == {}


def test_an_end_that_can_t_be_logged_reaches_the_viewers(
    one: Stepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = start(one)
    write(one, started, 1, 2, end=True)
    monkeypatch.setattr(run_process, "_log_end", fail)
    with pytest.raises(StoreError):  # the event loop would log it, and go on
        go_on(one)
    go_on(one)
    assert all_of(started.viewer)[-1].data.endswith("[DONE]")
    assert started.viewer.ended
    assert one.live_runs._runs == {}


def test_a_run_that_another_ends_before_it_is_written(one: Stepped, other: Stepped) -> None:
    def answer() -> Generated:
        (number,) = one.store._followed
        other.store.end_soon(number, STOPPED.ending())
        go_on(other)
        go_on(one)
        return nothing()

    started = start(one, answer)
    live = one.live_runs.get(started.run.key)
    assert live is not None
    assert live.writer is not None
    write(one, started, 1, 2)
    go_on(one)
    assert live.writer._cancelled
    (event,) = all_of(started.viewer)
    assert '"run_stopped"' in event.data
    assert event.last_event_id == f"{started.run.id}.1"
    assert one.live_runs._runs == {}


def test_an_end_that_was_not_heard_of_is_heard_of_by_a_refusal(
    one: Stepped, store: RunDatabase
) -> None:
    started = start(one)
    write(one, started, 1, 2)
    go_on(one)
    store.end(started.run.key, STOPPED.ending())
    write(one, started, 3, 2)
    one.settle()
    events = all_of(started.viewer)
    assert [event.last_event_id for event in events] == [f"{started.run.id}.{n}" for n in (1, 2, 3)]
    assert '"run_stopped"' in events[-1].data


def test_who_was_taken_for_dead_and_has_viewers_still_has_them(
    one: Stepped, other: Stepped, clock: Clock, store: RunDatabase
) -> None:
    started = start(one, alone_seconds=0.0)
    write(one, started, 1, 2)
    viewer = other.runs.view(started.run, FORMATS["chunks"])
    go_on(one)
    assert len(all_of(viewer)) == 2
    for _ in range(7):  # the other one stands still
        clock.now += 1
        one.store.tick()
    assert not one.store.database.leases.others_are_attached()
    other.store.tick()
    assert one.store.database.leases.others_are_attached()
    started.viewer.close()
    go_on(one, other)
    assert now(store, started.run).ended is None, "it has a viewer"
    write(one, started, 3, 1, end=True)
    go_on(one, other)
    assert [event.data for event in all_of(viewer)][-1] == "[DONE]"


def test_a_viewer_that_could_not_come_leaves_nothing_behind(
    one: Stepped, other: Stepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = start(one)
    go_on(one)
    first = other.runs.view(started.run, FORMATS["chunks"])
    assert all_of(first) == []
    second = other.runs.view(started.run, FORMATS["chunks"])
    other.interruption = first.close

    with monkeypatch.context() as broken:
        broken.setattr(Leases, "attach", fail)
        with pytest.raises(Exception, match="not available"):
            list(second.history())
    second.close()
    go_on(other)
    assert not other.live_runs._runs
    assert not other.store._followed
    assert not one.store.database.leases.others_are_attached()


class Killed(BaseException):
    """What a greenlet gets whose client has left."""


@pytest.mark.parametrize("others", [False, True])
def test_a_viewer_that_leaves_while_it_comes_leaves_nothing_behind(
    one: Stepped, other: Stepped, monkeypatch: pytest.MonkeyPatch, others: bool
) -> None:
    started = start(one)
    go_on(one)
    first = other.runs.view(started.run, FORMATS["chunks"])
    if others:
        assert all_of(first) == []

    def killed(call: Any, _patience: float = 0.0) -> Any:
        other.store.submit(call, lambda *_: None)
        raise Killed

    viewer = other.runs.view(started.run, FORMATS["chunks"])
    with monkeypatch.context() as broken:
        broken.setattr(other.store, "_wait_for", killed)
        with pytest.raises(Killed):
            list(viewer.history())
    viewer.close()
    go_on(other)
    assert not other._arriving
    assert bool(other.live_runs._runs) == bool(other.store._followed) == others
    assert one.store.database.leases.others_are_attached() == others
    write(one, started, 1, 1, end=True)
    go_on(one, other)
    assert len(all_of(first)) == 2


def test_who_could_not_say_that_its_viewers_have_left_says_it_later(
    one: Stepped, other: Stepped, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    started = start(one)
    viewer = other.runs.view(started.run, FORMATS["chunks"])
    assert all_of(viewer) == []

    with monkeypatch.context() as broken:
        broken.setattr(Leases, "detach", fail)
        viewer.close()
        go_on(other)
        other.store._guard(other.store.tick)
    assert one.store.database.leases.others_are_attached()
    clock.now += 1
    other.store.tick()
    assert not one.store.database.leases.others_are_attached()


def test_who_comes_back_after_that_is_not_taken_for_gone(
    one: Stepped, other: Stepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = start(one)
    viewer = other.runs.view(started.run, FORMATS["chunks"])
    assert all_of(viewer) == []

    with monkeypatch.context() as broken:
        broken.setattr(Leases, "detach", fail)
        viewer.close()
        go_on(other)
    assert all_of(other.runs.view(started.run, FORMATS["chunks"])) == []
    other.store.tick()
    assert one.store.database.leases.others_are_attached()


def test_who_is_just_coming_back_finds_the_run_going_on(one: Stepped, store: RunDatabase) -> None:
    started = start(one, alone_seconds=0.0)
    write(one, started, 1, 2)
    go_on(one)
    started.viewer.close()
    back = one.runs.view(started.run, FORMATS["chunks"])

    live = one.live_runs.get(started.run.key)
    assert live is not None
    writer = live.writer
    assert writer is not None
    one.interruption = lambda: one._cancel_overdue([started.run.key], set())
    assert len(all_of(back)) == 2
    go_on(one)
    assert now(store, started.run).ended is None
    back.close()
    go_on(one)
    assert outcome_of(now(store, started.run)).kind == "cancelled"


def codes_of_others(store: RunDatabase, started: Started) -> list[str | None]:
    """How all other runs failed."""
    number = started.run.key
    return [
        code_of(run) for run in store.follow(range(number - 9, number + 9)) if run.key != number
    ]


def come_back_later(process: Stepped, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the time pass in which a client is expected back."""
    after = time.monotonic() + 60
    with monkeypatch.context() as later:
        later.setattr(time, "monotonic", lambda: after)
        process.store.tick()
        go_on(process)


@pytest.mark.parametrize("joined", [False, True])
def test_who_is_sent_away_has_not_left(
    one: Stepped, store: RunDatabase, monkeypatch: pytest.MonkeyPatch, joined: bool
) -> None:
    started = start(one, alone_seconds=0.0)
    write(one, started, 1, 2)
    go_on(one)
    assert len(all_of(started.viewer)) == 2
    group = started.viewer.join(True, 15.0) if joined else None
    if group is None:
        started.viewer.will_reconnect()
        started.viewer.close()
    else:
        started.viewer.close()
        group.add(member := DetachedStream(0, group, 0.0, 0))
        group.reconnect_line()
        group.remove(member)
    one.store.tick()
    go_on(one)
    assert now(store, started.run).ended is None
    come_back_later(one, monkeypatch)
    assert outcome_of(now(store, started.run)).kind == "cancelled"


def test_who_is_sent_away_by_another_process_has_not_left(
    one: Stepped, other: Stepped, store: RunDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = start(one, alone_seconds=0.0)
    write(one, started, 1, 2)
    viewer = other.runs.view(started.run, FORMATS["chunks"])
    go_on(one, other)
    assert len(all_of(viewer)) == 2
    started.viewer.close()
    viewer.will_reconnect()
    viewer.close()
    for process in (other, one):
        process.store.tick()
        go_on(process)
    assert now(store, started.run).ended is None
    come_back_later(other, monkeypatch)
    assert not other.live_runs._runs
    come_back_later(one, monkeypatch)
    assert outcome_of(now(store, started.run)).kind == "cancelled"


def test_a_run_that_nobody_waited_for_is_ended(
    one: Stepped, store: RunDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise it would run for ever, with its key and without a writer.

    Its upstream was never called: a repetition of the request, as the error advises, begins it.
    """
    waited = one.store._wait_for

    def impatient(call: Any, _patience: float = 0.0) -> Any:
        one.store.submit(call, lambda *_: None)
        raise StoreBusy("the run store did not answer")

    monkeypatch.setattr(one.store, "_wait_for", impatient)
    with pytest.raises(Failure, match="not available"):
        start(one, key="k")
    monkeypatch.setattr(one.store, "_wait_for", waited)
    go_on(one)
    assert not one.live_runs._runs
    assert not one.store._followed
    again = start(one, key="k")
    assert not again.repeated
    assert codes_of_others(store, again) == ["interrupted"]


def test_a_run_whose_answer_can_not_be_asked_for_is_ended(one: Stepped, store: RunDatabase) -> None:
    def fail() -> Generated:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        start(one, fail, key="k")
    go_on(one)
    again = start(one, key="k")
    assert not again.repeated
    assert codes_of_others(store, again) == ["interrupted"]


def test_others_find_a_repetition_that_nobody_waited_for_as_it_was(
    one: Stepped, store: RunDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = start(one, key="k")
    waited = one.store._wait_for

    def impatient(call: Any, _patience: float = 0.0) -> Any:
        waited(call)
        raise StoreBusy("the run store did not answer")

    monkeypatch.setattr(one.store, "_wait_for", impatient)
    with pytest.raises(Failure, match="not available"):
        start(one, key="k")
    go_on(one)
    assert now(store, started.run).ended is None


def test_who_falls_behind_and_is_sent_more_misses_nothing(
    one: Stepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catch_up, "QUEUE", 4)
    started = start(one)
    assert all_of(started.viewer) == []
    write(one, started, 1, 6)
    go_on(one)
    write(one, started, 7, 1)
    go_on(one)
    seen = [event.last_event_id for event in all_of(started.viewer)]
    assert seen == [f"{started.run.id}.{number}" for number in range(1, 8)]


def test_nobody_joins_a_group_before_it_has_what_came_last(one: Stepped) -> None:
    started = start(one)
    assert all_of(started.viewer) == []
    write(one, started, 1, 1)
    go_on(one)
    assert started.viewer.join(True, 15.0) is None
    assert len(all_of(started.viewer)) == 1
    assert started.viewer.join(True, 15.0) is not None
