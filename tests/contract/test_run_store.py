"""What every run store promises, whatever keeps the runs: see `RunStore`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sseflask.store.api import KeyReused
from sseflask.store.run_api import Ending, Run, RunAppend, RunStore, StoreFull, TooMany, size_of
from tests.contract.run_stores import (
    BACKENDS,
    FINISHED,
    STOPPED,
    Listener,
    Place,
    Places,
    begun,
    everything,
    fresh,
    numbered,
    opened,
    put,
)

Process = tuple[RunStore, Listener]


@pytest.fixture(params=BACKENDS)
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    with BACKENDS[request.param]() as place:
        yield place


@pytest.fixture
def own(place: Place) -> Iterator[Process]:
    with opened(place) as own:
        yield own


@pytest.fixture
def store(own: Process) -> RunStore:
    return own[0]


@pytest.fixture
def listener(own: Process) -> Listener:
    return own[1]


def _is_shared(places: Places) -> bool:
    with places() as place:
        return place.shared


@pytest.fixture(params=[name for name, places in BACKENDS.items() if _is_shared(places)])
def shared(request: pytest.FixtureRequest) -> Iterator[Place]:
    """A place that several processes use."""
    with BACKENDS[request.param]() as place:
        yield place


@pytest.fixture
def one(shared: Place) -> Iterator[Process]:
    with opened(shared) as one:
        yield one


@pytest.fixture
def other(shared: Place) -> Iterator[Process]:
    with opened(shared) as other:
        yield other


# -- claims ----------------------------------------------------------------------------------------


def test_a_fresh_run_is_found_by_its_owner_alone(store: RunStore) -> None:
    run = begun(store, fresh(subject="alice"))
    assert store.find(run.id, "alice") == run
    assert store.find(run.id, "bob") is None
    assert store.find("f" * 32, "alice") is None
    assert begun(store).key != run.key


def test_a_key_finds_its_run_and_another_content_is_refused(
    store: RunStore, listener: Listener
) -> None:
    run = begun(store, fresh("k", b"content"))
    assert store.claim(fresh("k", b"content")) == (run, True)
    assert store.claim(fresh("k", b"other")) == KeyReused("k")
    put(store, run, 1, 2, FINISHED)
    ended = listener.wait_for_end(run)
    assert store.claim(fresh("k", b"content")) == (ended, True), "also when it has ended"


def test_running_runs_are_counted(store: RunStore, listener: Listener) -> None:
    assert store.claim(fresh(most=0)) == TooMany(0)
    first = begun(store, fresh(most=2))
    begun(store, fresh("k", most=2))
    assert store.claim(fresh(most=2)) == store.claim(fresh("l", most=2)) == TooMany(2)
    assert isinstance(store.claim(fresh("k", most=2)), tuple), "that is no further one"
    begun(store, fresh(subject="bob", most=1))
    put(store, first, 1, 0, FINISHED)
    listener.wait_for_end(first)
    begun(store, fresh(most=2))


@pytest.mark.parametrize("amount", [0, 1])
@pytest.mark.parametrize("frees_key", [False, True])
def test_an_end_may_free_the_key_of_a_run_without_a_frame(
    store: RunStore, listener: Listener, frees_key: bool, amount: int
) -> None:
    run = begun(store, fresh("k"))
    put(store, run, 1, amount, Ending(b"failed", frees_key))
    ended = listener.wait_for_end(run)
    claimed = store.claim(fresh("k"))
    assert isinstance(claimed, tuple)
    assert claimed[1] == (not frees_key or amount > 0)
    assert store.find(run.id, "alice") == ended, "it can be looked at all the same"


def test_a_claim_that_is_withdrawn_frees_its_key(store: RunStore, listener: Listener) -> None:
    claim = fresh("k")
    run = begun(store, claim)
    store.withdraw(claim)
    assert listener.wait_for_end(run).outcome == b"interrupted"
    again = begun(store, fresh("k"))
    store.withdraw(fresh("k"))  # never claimed
    assert store.claim(fresh("k")) == (again, True)


# -- frames and ends -------------------------------------------------------------------------------


def test_what_is_written_is_stored_before_the_listener_has_it(
    store: RunStore, listener: Listener
) -> None:
    run = begun(store)
    put(store, run, 1, 3)
    put(store, run, 4, 200)
    listener.wait_for_frame(run, 203)
    assert everything(store, run) == listener.seen[run.key] == numbered(1, 203)
    assert store.frames(run.key, 5, 2) == numbered(6, 2)
    assert listener.ends == []
    put(store, run, 204, 1, FINISHED)
    ended = listener.wait_for_end(run)
    assert ended == Run(run.key, run.id, run.label, 204, 205, b"finished", b"notes 204")
    assert store.find(run.id, "alice") == ended
    assert listener.ends == [(ended, True)]
    assert listener.seen[run.key] == numbered(1, 204)


def test_frames_of_any_content_and_size(store: RunStore, listener: Listener) -> None:
    run = begun(store)
    frames = [b"", b"\x00", bytes(range(256)), b"x" * 1_000_000]
    store.append(RunAppend(run.key, 1, frames, [b"", b"\xff", b"", b""], size_of(frames)))
    listener.wait_for_frame(run, 4)
    assert everything(store, run) == list(enumerate(frames, 1))


def test_writers_wait_for_room(store: RunStore, listener: Listener) -> None:
    run, size = begun(store), 0
    for number in range(1, 41):
        store.wait_for_room(run.key)
        frames = [b"x" * 100_000]
        size += size_of(frames)
        store.append(RunAppend(run.key, number, frames, [b""], size))
    listener.wait_for_frame(run, 40)
    store.wait_for_room(run.key)


def test_a_run_ends_once(store: RunStore, listener: Listener) -> None:
    run = begun(store)
    put(store, run, 1, 2)
    listener.wait_for_frame(run, 2)
    ended = store.end(run.key, STOPPED)
    assert ended == Run(run.key, run.id, run.label, 2, 3, b"stopped", b"notes 2")
    assert store.end(run.key, FINISHED) == ended
    store.end_soon(run.key, FINISHED)
    put(store, run, 3, 1, FINISHED)  # its writer does not know yet
    assert listener.wait_for_end(run) == ended
    assert store.find(run.id, "alice") == ended
    assert [here for _, here in listener.ends].count(True) == 1
    assert listener.seen[run.key] == numbered(1, 2)


def test_leaving_ends_what_is_written_here(store: RunStore, listener: Listener) -> None:
    run = begun(store)
    put(store, run, 1, 2)
    listener.wait_for_frame(run, 2)
    store.leave()
    ended = listener.wait_for_end(run)
    assert (ended.outcome, ended.ended, ended.notes) == (b"interrupted", 3, b"notes 2")
    again = begun(store)
    put(store, again, 1, 1, FINISHED)
    assert listener.wait_for_end(again).outcome == b"finished"


def test_a_run_that_has_ended_is_not_followed(store: RunStore, listener: Listener) -> None:
    run = begun(store)
    put(store, run, 1, 1, FINISHED)
    ended = listener.wait_for_end(run)
    assert store.attach(run.key) == ended
    store.detach(run.key)
    assert listener.ends == [(ended, True)]


def test_nothing_is_kept_for_longer_than_it_is_to_be(place: Place) -> None:
    with opened(place, seconds=0.0) as (store, listener):
        run = begun(store, fresh("k"))
        put(store, run, 1, 1, FINISHED)
        listener.wait_for_end(run)
        again = begun(store, fresh("k"))
        assert store.find(run.id, "alice") is None
        assert store.find(again.id, "alice") == again, "while it runs it is kept"


def test_a_store_full_of_running_runs_begins_no_more_and_then_ends_the_largest(
    place: Place,
) -> None:
    with opened(place, max_bytes=1_000_000) as (store, listener):
        large = [b"x" * 60_000]
        runs = []
        with pytest.raises(StoreFull):  # noqa: PT012  # as soon as it is full
            for _ in range(20):
                runs.append(begun(store))
                store.append(RunAppend(runs[-1].key, 1, [*large], [b""], size_of(large)))
                listener.wait_for_frame(runs[-1], 1)
        assert listener.ends == [], "they may end well"
        largest, frames = runs[0], [b"y" * 200_000]
        store.append(RunAppend(largest.key, 2, frames, [b""], size_of(large) + size_of(frames)))
        assert listener.wait_for_end(largest).outcome == b"full"
        assert store.extent().bytes > 0


def test_its_health_and_what_keeps_it(place: Place) -> None:
    with opened(place) as (store, _):
        assert store.health() == "available"
        assert (store.durability() == "memory") == (not place.shared)
        assert store.extent().oldest == 0.0


# -- several processes -----------------------------------------------------------------------------


def test_a_key_finds_the_run_of_another_process(one: Process, other: Process) -> None:
    run = begun(one[0], fresh("k"))
    assert other[0].claim(fresh("k")) == (run, True)
    assert other[0].find(run.id, "alice") == run
    assert other[0].claim(fresh(most=1)) == TooMany(1)


def test_an_attached_process_gets_what_comes_from_then_on(one: Process, other: Process) -> None:
    run = begun(one[0])
    put(one[0], run, 1, 3)
    one[1].wait_for_frame(run, 3)
    attached = other[0].attach(run.key)
    assert attached is not None
    assert attached.last == 3
    put(one[0], run, 4, 600)
    put(one[0], run, 604, 1, FINISHED)
    assert other[1].wait_for_end(run) == one[1].wait_for_end(run)
    assert other[1].seen[run.key] == numbered(4, 601)
    assert [here for _, here in other[1].ends] == [False]
    assert [here for _, here in one[1].ends] == [True]


def test_attaching_again_gives_all_up_to_there_before(one: Process, other: Process) -> None:
    run = begun(one[0])
    other[0].attach(run.key)
    put(one[0], run, 1, 3)
    one[1].wait_for_frame(run, 3)
    again = other[0].attach(run.key)
    assert again is not None
    assert other[1].seen[run.key][:3] == numbered(1, again.last)


def test_a_detached_process_gets_no_more(one: Process, other: Process) -> None:
    run = begun(one[0])
    other[0].attach(run.key)
    put(one[0], run, 1, 1)
    other[1].wait_for_frame(run, 1)
    other[0].detach(run.key)
    other[0].find(run.id, "alice")  # so that it has
    put(one[0], run, 2, 1, FINISHED)
    one[1].wait_for_end(run)
    beats = other[1].beats
    other[1].wait(lambda: other[1].beats > beats, "it goes on")
    assert (other[1].seen[run.key], other[1].ends) == (numbered(1, 1), [])


def attached_elsewhere(process: Process, *runs: Run) -> set[object]:
    """Ask for that, and wait for the answer."""
    store, listener = process
    answers: list[set[object]] = []

    def answer(found: set[object]) -> None:
        with listener.changed:
            answers.append(found)
            listener.changed.notify_all()

    store.attached_elsewhere([run.key for run in runs], answer)
    listener.wait(lambda: answers, "no answer")
    return answers[0]


def test_a_process_knows_which_of_its_runs_others_are_attached_to(
    one: Process, other: Process
) -> None:
    run, alone = begun(one[0]), begun(one[0])
    assert attached_elsewhere(one, run, alone) == set()
    one[0].attach(run.key)
    assert attached_elsewhere(one, run, alone) == set(), "that is this process"
    other[0].attach(run.key)
    assert attached_elsewhere(one, run, alone) == {run.key}
    one[0].end_soon(run.key, STOPPED, unless_attached=True)
    one[0].end_soon(alone.key, STOPPED, unless_attached=True)
    one[1].wait_for_end(alone)
    assert one[1].ended_as(run.key) == []
    other[0].detach(run.key)
    other[0].find(run.id, "alice")  # so that it has
    assert attached_elsewhere(one, run) == set()
    one[0].end_soon(run.key, STOPPED, unless_attached=True)
    assert one[1].wait_for_end(run).outcome == b"stopped"


def test_who_asks_learns_of_a_change_at_once(one: Process, other: Process) -> None:
    """Without waiting for the next second."""
    run = begun(one[0])
    for _ in range(3):
        attached_elsewhere(one, run)
        beats = one[1].beats
        other[0].attach(begun(other[0]).key)
        other[0].attach(run.key)
        one[1].wait(lambda beats=beats: one[1].beats > beats, "it has a beat")  # type: ignore[misc]  # mypy knows no default of a lambda
        other[0].detach(run.key)


def test_any_process_can_end_a_run_and_all_get_the_same_end(one: Process, other: Process) -> None:
    run = begun(one[0])
    put(one[0], run, 1, 2)
    one[1].wait_for_frame(run, 2)
    other[0].attach(run.key)
    ended = other[0].end(run.key, STOPPED)
    assert ended is not None
    assert (ended.ended, ended.notes) == (3, b"notes 2")
    assert one[0].end(run.key, FINISHED) == ended
    assert one[1].wait_for_end(run) == other[1].wait_for_end(run) == ended
    assert [here for _, here in other[1].ends] == [True]
    assert [here for _, here in one[1].ends] == [False]
    put(one[0], run, 3, 5)
    assert everything(other[0], run) == numbered(1, 2)


def test_nobody_writes_into_a_run_of_another_process(one: Process, other: Process) -> None:
    """It is ended instead, as its own process may have been taken for dead."""
    run, mine = begun(one[0]), begun(other[0])
    put(other[0], run, 1, 1)
    put(other[0], mine, 1, 1)
    other[1].wait_for_frame(mine, 1)
    assert everything(one[0], run) == []
    assert one[1].wait_for_end(run).last == 0


def test_the_runs_of_a_process_that_leaves_end_for_all(one: Process, other: Process) -> None:
    run, mine = begun(one[0]), begun(other[0])
    other[0].attach(run.key)
    one[0].leave()
    assert other[1].wait_for_end(run).outcome == b"interrupted"
    assert other[1].ended_as(mine.key) == []


def test_the_runs_of_a_process_that_stands_still_are_ended_by_another(
    shared: Place, other: Process
) -> None:
    with opened(shared) as one:
        run, unseen = begun(one[0]), begun(one[0])
        put(one[0], run, 1, 2)
        one[1].wait_for_frame(run, 2)
        other[0].attach(run.key)
        go_on = shared.stand_still(one[0])
        ended = other[1].wait_for_end(run)
        assert (ended.outcome, ended.ended, ended.notes) == (b"interrupted", 3, b"notes 2")
        assert other[1].wait_for_end(unseen).outcome == b"interrupted", "though none follows it"
        assert [here for _, here in other[1].ends] == [True, True]
        put(one[0], run, 3, 1)
        go_on()
        assert one[1].wait_for_end(run) == ended
        put(one[0], begun(one[0]), 1, 1)
    assert everything(other[0], run) == numbered(1, 2)


def test_what_is_stored_is_there_for_a_process_that_comes_later(shared: Place) -> None:
    with opened(shared) as (store, listener):
        run = begun(store)
        put(store, run, 1, 2, FINISHED)
        ended = listener.wait_for_end(run)
    with opened(shared) as (store, _):
        assert store.find(run.id, "alice") == ended
        assert everything(store, run) == numbered(1, 2)
