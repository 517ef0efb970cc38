"""What every run store promises, whatever keeps the runs: see `RunStore`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

import pytest

from sseflask.store.api import KeyReused
from sseflask.store.redis import run_scripts
from sseflask.store.run_api import Ending, Run, RunAppend, RunStore, StoreFull, TooMany, size_of
from sseflask.store.sqlite import run_database
from tests.contract.run_processes import FRAMES, begin, inherit
from tests.contract.run_stores import (
    BACKENDS,
    DAY,
    FINISHED,
    STOPPED,
    Listener,
    Place,
    Places,
    begun,
    everything,
    frames_of,
    fresh,
    numbered,
    opened,
    put,
)
from tests.processes import go_on, line, process

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


@pytest.mark.parametrize("seconds", [0.0, DAY])
def test_a_run_is_kept_as_long_as_its_claim_says(place: Place, seconds: float) -> None:
    """However long others are kept."""
    with opened(place, seconds=seconds) as (store, listener):
        kept, short, gone = (begun(store, fresh(str(keep), keep=keep)) for keep in (DAY, 1.0, 0.0))
        for run in (kept, short, gone):
            put(store, run, 1, 1, FINISHED)
            listener.wait_for_end(run)
        ended = time.monotonic()
        assert store.find(gone.id, "alice") is None
        assert store.claim(fresh("0.0"))[1] is False  # type: ignore[index]  # it is a run
        assert store.attach(gone.key) is not None, "its viewers still read it"
        if time.monotonic() < ended + 0.5:
            assert store.find(short.id, "alice") == listener.wait_for_end(short)
        while time.monotonic() <= ended + 1.0:
            beats = listener.beats
            listener.wait(lambda beats=beats: listener.beats > beats, "it has a beat")  # type: ignore[misc]  # mypy knows no default of a lambda
        assert store.find(short.id, "alice") is None
        assert store.claim(fresh("1.0"))[1] is False  # type: ignore[index]  # it is a run
        assert store.find(kept.id, "alice") == listener.wait_for_end(kept)
        assert store.claim(fresh(str(DAY))) == (listener.wait_for_end(kept), True)
        assert listener.gone == []


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


# -- runs that other processes go on with ----------------------------------------------------------


@contextmanager
def dead(place: Place, process: Process) -> Iterator[Callable[[], object]]:
    """A process of which others hear nothing, until what is given is called."""
    go_on = place.stand_still(process[0])
    try:
        yield go_on
    finally:
        go_on()


def test_a_run_is_inherited_when_its_writer_dies(shared: Place, other: Process) -> None:
    with opened(shared) as one, opened(shared, inherits=False) as viewer:
        run, plain = begun(one[0], fresh(successor=b"go on")), begun(one[0])
        viewer[0].attach(run.key)
        other[0].attach(plain.key)
        put(one[0], run, 1, 2)
        viewer[1].wait_for_frame(run, 2)
        with dead(shared, one) as go_on:
            inherited = other[1].wait_for_inheritance(run)
            size = size_of(frames_of(1, 2))
            assert inherited == Run(run.key, run.id, run.label, 2, None, None, b"notes 2", size)
            assert other[1].inheritance == [(inherited, b"go on")]
            assert other[1].wait_for_end(plain).outcome == b"interrupted", "it has no successor"
            put(other[0], run, 3, 2)
            put(one[0], run, 3, 1)
            viewer[1].wait_for_frame(run, 4)
            go_on()
            one[1].wait_until_passed_on(run)
        put(one[0], run, 4, 3, STOPPED)
        assert isinstance(one[0].attach(run.key), Run), "as a viewer"
        put(other[0], run, 5, 1, FINISHED)
        ended = other[1].wait_for_end(run)
        assert ended.outcome == b"finished"
        assert viewer[1].wait_for_end(run) == one[1].wait_for_end(run) == ended
        assert viewer[1].seen[run.key] == everything(other[0], run) == numbered(1, 5)
        assert len(viewer[1].ended_as(run.key)) == 1
        assert viewer[1].inheritance == one[1].inheritance == []


def test_a_run_that_kills_its_writers_ends_at_the_second_death(
    shared: Place, other: Process
) -> None:
    with opened(shared) as one, opened(shared) as another:
        run = begun(one[0], fresh(successor=b"go on"))
        processes = {id(each[1]): each for each in (other, another)}
        with dead(shared, one):
            heirs = (other[1], another[1])
            _wait_for_any(heirs, run)
            (heir,) = (each for each in heirs if each.inherited_as(run))
            put(processes[id(heir)][0], run, 1, 2)
            heir.wait_for_frame(run, 2)
            survivor = next(each for each in processes.values() if each[1] is not heir)
            with dead(shared, processes[id(heir)]):
                ended = survivor[1].wait_for_end(run)
                assert (ended.outcome, ended.last) == (b"interrupted", 2)
        assert survivor[1].inheritance == []


def _wait_for_any(listeners: tuple[Listener, ...], run: Run) -> None:
    """Until one of them has inherited a run. All of them have a beat each second."""
    while not any(each.inherited_as(run) for each in listeners):
        beats = listeners[0].beats
        listeners[0].wait(lambda beats=beats: listeners[0].beats > beats, "it has a beat")  # type: ignore[misc]  # mypy knows no default of a lambda


def test_a_run_is_inherited_whenever_its_writer_leaves(shared: Place, other: Process) -> None:
    """And once more if one has died."""
    viewer = other
    viewer[0].leave()  # so that it inherits nothing
    with ExitStack() as stack:
        process = stack.enter_context(opened(shared))
        run = begun(process[0], fresh(successor=b"go on"))
        viewer[0].attach(run.key)
        for number in range(1, 5):
            put(process[0], run, number, 1)
            viewer[1].wait_for_frame(run, number)
            process[0].leave()
            process[1].wait_until_passed_on(run)
            process = stack.enter_context(opened(shared))
            assert process[1].wait_for_inheritance(run).last == number
        put(process[0], run, 5, 1)
        process[1].wait_for_frame(run, 5)
        with dead(shared, process), opened(shared) as last:
            assert last[1].wait_for_inheritance(run).last == 5
            put(last[0], run, 6, 1, FINISHED)
            ended = viewer[1].wait_for_end(run)
        assert ended.outcome == b"finished"
        assert viewer[1].seen[run.key] == numbered(1, 6)
        assert len(viewer[1].ended_as(run.key)) == 1


def test_a_process_that_is_to_go_inherits_nothing(shared: Place, other: Process) -> None:
    """It would pass it on again; what it writes goes on."""
    other[0].inherit_no_more()
    own = begun(other[0], fresh(successor=b"go on"))
    with opened(shared) as one:
        run = begun(one[0], fresh(successor=b"go on"))
        put(one[0], run, 1, 1)
        one[1].wait_for_frame(run, 1)
        one[0].leave()
        one[1].wait_until_passed_on(run)
        beats = other[1].beats
        other[1].wait(lambda: other[1].beats > beats + 1, "it has looked")
        with opened(shared) as third:
            assert third[1].wait_for_inheritance(run).last == 1
            put(other[0], own, 1, 1, FINISHED)
            assert other[1].wait_for_end(own).outcome == b"finished"
        assert other[1].inheritance == []


def test_a_viewer_that_inherits_has_got_all_before(shared: Place, other: Process) -> None:
    with opened(shared) as one:
        run = begun(one[0], fresh(successor=b"go on"))
        put(one[0], run, 1, 1)
        one[1].wait_for_frame(run, 1)
        other[0].attach(run.key)
        put(one[0], run, 2, 700)
        one[1].wait_for_frame(run, 701)
        one[0].leave()
        assert other[1].wait_for_inheritance(run).last == 701
        put(other[0], run, 702, 2, FINISHED)
        other[1].wait_for_end(run)
        assert other[1].seen[run.key] == numbered(2, 702)


@pytest.mark.parametrize("leaves", [False, True])
def test_a_run_outlives_a_time_without_processes(shared: Place, leaves: bool) -> None:
    with opened(shared) as one:
        run = begun(one[0], fresh(successor=b"go on"))
        put(one[0], run, 1, 2)
        one[1].wait_for_frame(run, 2)
        if leaves:
            one[0].leave()
            one[1].wait_until_passed_on(run)
    with opened(shared, inherits=False) as looks:
        assert looks[0].find(run.id, "alice") == run._replace(last=2)
    with opened(shared) as other:
        assert other[1].wait_for_inheritance(run).last == 2


def test_exactly_one_process_inherits_each_run(shared: Place) -> None:
    with ExitStack() as stack:
        heirs = [stack.enter_context(opened(shared)) for _ in range(4)]
        one = stack.enter_context(opened(shared))
        runs = [begun(one[0], fresh(most=1000, successor=b"go on")) for _ in range(120)]
        for run in runs:
            put(one[0], run, 1, 1)
        for run in runs:
            one[1].wait_for_frame(run, 1)
        one[0].leave()
        for run in runs:
            _wait_for_any(tuple(listener for _, listener in heirs), run)
        found = [run.key for _, listener in heirs for run, _ in listener.inheritance]
        assert sorted(found) == sorted(run.key for run in runs)
        assert not one[1].inheritance
        assert not one[1].ends


def test_who_only_looks_lets_runs_wait_and_can_stop_them(shared: Place) -> None:
    with opened(shared, inherits=False) as looks, opened(shared) as one:
        waits, stopped = (
            begun(one[0], fresh(key, successor=b"go on", most=2)) for key in ("waits", "stopped")
        )
        looks[0].attach(stopped.key)
        put(one[0], stopped, 1, 2)
        one[1].wait_for_frame(stopped, 2)
        one[0].leave()
        one[1].wait_until_passed_on(stopped)
        assert looks[0].claim(fresh(most=2)) == TooMany(2), "they count as running"
        assert looks[0].claim(fresh("waits")) == (waits, True)
        ended = looks[0].end(stopped.key, STOPPED)
        assert ended is not None
        assert (ended.outcome, ended.ended, ended.notes) == (b"stopped", 3, b"notes 2")
        assert looks[1].wait_for_end(stopped) == ended
        with opened(shared) as other:
            other[1].wait_for_inheritance(waits)
            assert other[0].claim(fresh("stopped")) == (ended, True)
            assert other[0].find(stopped.id, "alice") == ended
            assert other[1].inherited_as(stopped) == []
        assert looks[1].inheritance == []
        assert looks[1].seen[stopped.key] == numbered(1, 2)


def test_the_runs_of_one_that_only_looks_are_inherited(shared: Place, other: Process) -> None:
    with opened(shared, inherits=False) as one:
        run = begun(one[0], fresh(successor=b"go on"))
        one[0].leave()
        assert other[1].wait_for_inheritance(run).last == 0


def test_a_run_that_waited_for_too_long_is_ended(shared: Place) -> None:
    with opened(shared, seconds=0.0) as one:
        run = begun(one[0], fresh(successor=b"go on"))
        one[0].leave()
        one[1].wait_until_passed_on(run)
    with (
        mock.patch.object(run_scripts, "WAIT_SECONDS", 0.0),
        mock.patch.object(run_database, "WAIT_SECONDS", 0.0),
        opened(shared, seconds=0.0) as other,
    ):
        assert other[1].wait_for_end(run).outcome == b"interrupted"
        assert other[1].inheritance == []


def test_a_process_that_stood_still_keeps_what_nobody_has_inherited(shared: Place) -> None:
    with opened(shared, inherits=False) as looks, opened(shared) as one:
        run, plain = begun(one[0], fresh(successor=b"go on")), begun(one[0])
        put(one[0], run, 1, 1)
        one[1].wait_for_frame(run, 1)
        with dead(shared, one):
            assert looks[1].wait_for_end(plain).outcome == b"interrupted"
        one[1].wait_for_end(plain)
        put(one[0], run, 2, 1, FINISHED)
        assert one[1].wait_for_end(run).outcome == b"finished"
        assert (one[1].gone, one[1].inheritance) == ([], [])
        assert everything(looks[0], run) == numbered(1, 2)


def test_the_runs_of_a_killed_process_go_on_in_others(shared: Place) -> None:
    """As if nothing had happened, for who follows them."""
    address = shared.address
    with (
        opened(shared, inherits=False) as (store, viewer),
        process(inherit, address) as one,
        process(inherit, address) as other,
        process(begin, address, 30) as writer,
    ):
        assert (line(one), line(other)) == ("ready", "ready")
        runs = [store.find(id, "alice") for id in line(writer).split()]
        for run in runs:
            assert run is not None
            store.attach(run.key)
        go_on(writer)
        assert line(writer) == "half"
        writer.kill()
        for run in runs:
            assert run is not None
            assert viewer.wait_for_end(run).outcome == b"finished"
            assert viewer.seen[run.key] == everything(store, run) == numbered(1, FRAMES)
        heirs = []
        for each in (one, other):
            go_on(each)
            assert each.stdout is not None
            heirs += each.stdout.read().split()
        assert sorted(heirs) == sorted(run.id for run in runs if run)
        assert len(viewer.ends) == len(runs)
