"""A database of runs: which process may write what, and that every run ends once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from sseflask.completions.completion_outcome import CompletionOutcome
from sseflask.errors import Failure
from sseflask.runs.outcome import interrupted
from sseflask.store.api import KeyReused, StoreError
from sseflask.store.run_api import RunAppend, TooMany, size_of
from sseflask.store.sqlite import leases
from sseflask.store.sqlite.run_database import RunDatabase
from tests.clock import Clock
from tests.unit.store.sqlite.run_databases import (
    DAY,
    FINISHED,
    STOPPED,
    append_of,
    begun,
    code_of,
    end,
    everything,
    finish,
    frames_of,
    fresh,
    is_stored,
    now,
    numbers,
    opened,
    outcome_of,
    put,
)

FAILED = CompletionOutcome.failed(Failure("broken", code="broken"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "runs.db"


@pytest.fixture
def store(path: Path, clock: Clock) -> Iterator[RunDatabase]:
    with opened(path, clock=clock) as store:
        yield store


@pytest.fixture
def other(store: RunDatabase, path: Path, clock: Clock) -> Iterator[RunDatabase]:
    """What another process has of the same file."""
    assert store.leases.token
    with opened(path, clock=clock) as other:
        yield other


# -- claims ----------------------------------------------------------------------------------------


def test_a_fresh_run_is_found_by_its_owner_alone(store: RunDatabase, other: RunDatabase) -> None:
    run = begun(store, fresh(subject="alice"))
    assert (run.last, run.ended, run.outcome) == (0, None, None)
    assert store.find(run.id, "alice") == other.find(run.id, "alice") == run
    assert store.find(run.id, "bob") is None
    assert store.find("f" * 32, "alice") is None


def test_runs_without_a_key_are_never_the_same(store: RunDatabase) -> None:
    assert begun(store).key != begun(store).key


def test_a_repeated_key_finds_the_run_and_another_content_is_refused(
    store: RunDatabase, other: RunDatabase
) -> None:
    run = begun(store, fresh("k", b"content"))
    for connection in (store, other):
        assert connection.claim(fresh("k", b"content")) == (run, True)
        assert connection.claim(fresh("k", b"other")) == KeyReused("k")
    begun(other, fresh("l", b"content"))


@pytest.mark.parametrize("outcome", [FINISHED, FAILED, STOPPED])
def test_a_key_finds_a_run_that_has_ended(store: RunDatabase, outcome: CompletionOutcome) -> None:
    run = begun(store, fresh("k"))
    put(store, run, 1, 2)
    ended = finish(store, run, outcome)
    assert store.claim(fresh("k")) == (ended, True)


def refusal(status: int, **headers: str) -> CompletionOutcome:
    return CompletionOutcome.failed(Failure("no", status=status, headers=headers))


@pytest.mark.parametrize("by", ["its writer", "somebody else"])
@pytest.mark.parametrize(
    ("outcome", "again"),
    [
        *((refusal(status), True) for status in (408, 425, 429, 500, 502, 503, 504)),
        *((refusal(status), False) for status in (400, 401, 403, 404, 409, 413, 422)),
        (refusal(500, **{"x-should-retry": "false"}), False),
        (refusal(400, **{"X-Should-Retry": "true"}), True),
        (CompletionOutcome.failed(interrupted()), True),
        (STOPPED, False),
        (CompletionOutcome("cancelled"), False),
        (FINISHED, False),
    ],
)
def test_a_passing_failure_before_the_first_frame_uses_no_key_up(
    store: RunDatabase, other: RunDatabase, outcome: CompletionOutcome, again: bool, by: str
) -> None:
    run = begun(store, fresh("k"))
    ended = finish(store, run, outcome) if by == "its writer" else end(other, run.key, outcome)
    claimed = other.claim(fresh("k"))
    assert isinstance(claimed, tuple)
    assert (claimed[0].key == run.key, claimed[1]) == (not again, not again)
    # Of many repetitions one begins the run, and the others find it.
    assert store.claim(fresh("k")) == (claimed[0], True)
    assert store.find(run.id, "alice") == ended, "it can be looked at all the same"


def test_running_runs_are_counted_over_all_processes(
    store: RunDatabase, other: RunDatabase
) -> None:
    first, _ = begun(store, fresh(most=2)), begun(other, fresh("k", most=2))
    for key in (None, "l"):
        for connection in (store, other):
            assert connection.claim(fresh(key, most=2)) == TooMany(2)
    # Those that are found are no further ones, and another account has its own.
    assert isinstance(store.claim(fresh("k", most=2)), tuple)
    begun(store, fresh(account="bob", most=1))
    finish(store, first)
    begun(other, fresh("l", most=2))
    assert store.claim(fresh(most=2)) == TooMany(2)


def test_none_may_be_none(store: RunDatabase) -> None:
    assert store.claim(fresh(most=0)) == TooMany(0)
    assert store.claim(fresh("k", most=0)) == TooMany(0)


def test_the_key_of_a_run_of_long_ago_is_free_again(
    path: Path, store: RunDatabase, clock: Clock
) -> None:
    with opened(path, seconds=100, clock=clock) as store:
        run = begun(store, fresh("k", b"content"))
        clock.now += 1000
        assert store.claim(fresh("k", b"content")) == (run, True), "while it runs it is known"
        ended = finish(store, run)
        clock.now += 100
        assert store.claim(fresh("k", b"content")) == (ended, True)
        clock.now += 1
        again = begun(store, fresh("k", b"other"))
        # Nobody has come to forget the old one; that must not take the new one's key.
        assert store.trim()
        assert store.claim(fresh("k", b"other")) == (again, True)


# -- appends ---------------------------------------------------------------------------------------


def test_frames_come_back_as_they_were(store: RunDatabase, other: RunDatabase) -> None:
    run = begun(store)
    frames = [b"", b"\x00", bytes(range(256)), "\N{PILE OF POO}".encode(), b"x" * 1_000_000]
    assert is_stored(store, append_of(run.key, 1, frames))
    assert everything(other, run) == list(enumerate(frames, 1))
    assert now(other, run).last == 5


def test_pages_are_bounded_in_number_and_size(store: RunDatabase) -> None:
    run = begun(store)
    put(store, run, 1, 20)
    assert numbers(store.frames(run.key, 0, 7)) == list(range(1, 8))
    assert numbers(store.frames(run.key, 18, 7)) == [19, 20]
    assert store.frames(run.key, 20, 7) == store.frames(run.key + 1, 0, 7) == []
    large = begun(store)
    store.append([append_of(large.key, 1, [b"x" * 100_000] * 10)])
    assert numbers(store.frames(large.key, 0, 10)) == [1, 2, 3]
    assert numbers(everything(store, large)) == list(range(1, 11))


@pytest.mark.parametrize("amount", [1, 63, 64, 65, 128, 200])
def test_any_number_of_frames_in_one_append(store: RunDatabase, amount: int) -> None:
    run, beside = begun(store), begun(store)
    frames = frames_of(1, amount)
    refused, (ended,) = store.append(
        [append_of(run.key, 1, frames), append_of(beside.key, 1, [b"beside"], FINISHED)]
    )
    assert (refused, ended.key, ended.last, ended.ended) == ([], beside.key, 1, 2)
    assert (now(store, run).last, now(store, run).ended) == (amount, None)
    assert everything(store, run) == list(enumerate(frames, 1))
    assert everything(store, beside) == [(1, b"beside")]


def test_nobody_writes_into_a_run_of_another_process(
    store: RunDatabase, other: RunDatabase
) -> None:
    run, own = begun(store), begun(other)
    put(store, run, 1, 2)
    assert not put(other, run, 3, 1)
    assert finish(other, run) is None
    # What may be written in the same batch is.
    appends = [
        append_of(own.key, 1, frames_of(1, 2)),
        append_of(run.key, 3, frames_of(3, 90)),
        append_of(10**6, 1, frames_of(1, 1)),
        append_of(own.key, 3, frames_of(3, 1), FINISHED),
    ]
    assert other.append(appends) == (appends[1:3], [now(other, own)])
    assert numbers(everything(store, run)) == [1, 2]
    assert numbers(everything(store, own)) == [1, 2, 3]
    assert now(store, run).ended is None
    assert now(store, own).ended == 4


def test_what_was_ended_by_another_in_between_takes_no_more(
    store: RunDatabase, other: RunDatabase
) -> None:
    run, beside = begun(store), begun(store)
    put(store, run, 1, 3)
    stopped = end(other, run.key, STOPPED)
    assert stopped is not None
    assert stopped.ended == 4
    appends = [
        append_of(run.key, 4, frames_of(4, 2)),
        append_of(beside.key, 1, frames_of(1, 1)),
    ]
    assert store.append(appends) == (appends[:1], [])
    assert not is_stored(store, append_of(run.key, 4, frames_of(4, 2), FINISHED))
    assert finish(store, run) is None
    assert now(other, run) == stopped
    assert numbers(everything(other, run)) == [1, 2, 3]


def test_an_append_of_nothing_but_the_end(store: RunDatabase) -> None:
    run = begun(store)
    ended = finish(store, run)
    assert ended is not None
    assert (ended.id, ended.label, ended.last, ended.ended) == (run.id, run.label, 0, 1)
    assert outcome_of(ended) == FINISHED
    assert store.find(run.id, "alice") == ended


def test_an_append_of_nothing_at_all_is_harmless(store: RunDatabase) -> None:
    run = begun(store)
    put(store, run, 1, 2)
    assert is_stored(store, append_of(run.key, 3, []))
    assert now(store, run).last == 2
    assert store.append([]) == ([], [])


def test_frames_and_the_end_in_one(store: RunDatabase) -> None:
    run = begun(store)
    put(store, run, 1, 1)
    refused, (ended,) = store.append([append_of(run.key, 2, frames_of(2, 2), FINISHED)])
    assert (refused, ended.last, ended.ended) == ([], 3, 4)


# -- one end ---------------------------------------------------------------------------------------


def test_a_run_ends_once_whoever_is_first(store: RunDatabase, other: RunDatabase) -> None:
    run = begun(store)
    put(store, run, 1, 1)
    first = end(other, run.key, STOPPED)
    assert end(store, run.key, FAILED) == first
    assert end(other, run.key, STOPPED) == first
    assert finish(store, run) is None
    assert store.leases.leave() == []
    assert outcome_of(first).kind == "stopped"
    ended = finish(store, again := begun(store))
    assert end(other, again.key, STOPPED) == ended
    assert outcome_of(ended).kind == "finished"
    assert end(store, 10**6, STOPPED) is None


def test_a_process_that_goes_ends_what_it_writes(store: RunDatabase, other: RunDatabase) -> None:
    run, ended, others = begun(store), begun(store), begun(other)
    put(store, run, 1, 2)
    finish(store, ended)
    (left,) = store.leases.leave()
    assert (left.key, left.ended, code_of(left)) == (run.key, 3, "interrupted")
    assert not put(store, run, 3, 1)
    assert now(store, others).ended is None
    assert store.leases.leave() == []
    # It may begin anew, whichever way.
    again = begun(store)
    assert put(store, again, 1, 1)
    store.leases.leave()
    assert put(store, begun(store, fresh("k")), 1, 1) is not None


def test_who_has_sent_its_viewers_away_keeps_them_in_mind(
    store: RunDatabase, other: RunDatabase, clock: Clock
) -> None:
    run = begun(store)
    other.leases.attach(run.key)
    other.leases.leave()
    clock.now += 4  # on their way to this process
    spared = end(store, run.key, STOPPED, unless_attached=True)
    assert spared is not None
    assert spared.ended is None
    clock.now += 2
    assert outcome_of(end(store, run.key, STOPPED, unless_attached=True)) == STOPPED


# -- who is alive ----------------------------------------------------------------------------------


def test_the_runs_of_a_dead_process_are_ended_once(
    path: Path, store: RunDatabase, other: RunDatabase, clock: Clock
) -> None:
    with opened(path, clock=clock) as third:
        for connection in (store, third):
            assert connection.leases.tick() == []
        run, finished, own = begun(other), begun(other), begun(store)
        put(other, run, 1, 2)
        finish(other, finished)
        ended = []
        for _ in range(6):
            clock.now += 1
            for connection in (store, third):
                ended += connection.leases.tick()
        assert [(each.key, each.ended, code_of(each)) for each in ended] == [
            (run.key, 3, "interrupted")
        ]
        assert now(store, run) == ended[0]
        assert numbers(everything(store, run)) == [1, 2], "what it has said stays"
        assert now(store, own).ended is None


def test_a_process_is_not_dead_for_less_than_five_seconds(
    store: RunDatabase, other: RunDatabase, clock: Clock
) -> None:
    store.leases.tick()
    run = begun(other)
    for _ in range(5):
        clock.now += 1
        assert store.leases.tick() == []
    other.leases.tick()
    for _ in range(5):
        clock.now += 1
        assert store.leases.tick() == []
    assert put(other, run, 1, 1)


def test_who_was_away_does_not_judge(store: RunDatabase, other: RunDatabase, clock: Clock) -> None:
    run, own = begun(other), begun(store)
    store.leases.tick()
    other.leases.tick()
    clock.now += 60  # the machine has slept
    assert store.leases.tick() == []
    assert other.leases.tick() == []
    clock.now += 1
    assert store.leases.tick() == other.leases.tick() == []
    assert put(other, run, 1, 1)
    assert put(store, own, 1, 1)


@pytest.mark.parametrize("in_use", [True, False])
def test_who_could_not_write_does_not_judge(
    store: RunDatabase, other: RunDatabase, clock: Clock, in_use: bool
) -> None:
    """None could write, and the first to go on would take all others for dead."""
    run = begun(other)
    assert store.leases.tick(in_use) == other.leases.tick() == []
    for connection in (store, other):
        writable(connection, False)
    for _ in range(8):
        clock.now += 1
        with contextlib.suppress(StoreError):
            assert store.leases.tick(in_use) == []
        with pytest.raises(StoreError):
            other.leases.tick()
    for connection in (store, other):
        writable(connection, True)
    for _ in range(2):
        clock.now += 1
        assert store.leases.tick(in_use) == []
    assert other.leases.tick() == []
    assert put(other, run, 1, 1)
    ended = []
    for _ in range(7):
        clock.now += 1
        ended += store.leases.tick(in_use)
    assert [each.key for each in ended] == [run.key], "later it does"


def writable(store: RunDatabase, whether: bool) -> None:
    with store.using() as database:
        database.execute(f"PRAGMA query_only = {'off' if whether else 'on'}").fetchone()


def test_a_process_that_begins_does_not_judge_at_once(
    path: Path, store: RunDatabase, clock: Clock
) -> None:
    run = begun(store)
    clock.now += 60
    with opened(path, clock=clock) as new:
        assert new.leases.tick() == []
        clock.now += 1
        assert [each.key for each in new.leases.tick()] == [run.key]


def test_who_was_taken_for_dead_gets_a_new_token_and_its_old_runs_are_lost(
    store: RunDatabase, other: RunDatabase, clock: Clock
) -> None:
    store.leases.tick()
    run, token = begun(other, fresh("k")), other.leases.token
    put(other, run, 1, 1)
    for _ in range(6):
        clock.now += 1
        store.leases.tick()
    assert not put(other, run, 2, 1), "before it knows"
    assert other.leases.tick() == []
    assert other.leases.token != token
    assert not put(other, run, 2, 1)
    assert finish(other, run) is None
    assert code_of(now(store, run)) == "interrupted"
    assert numbers(everything(store, run)) == [1]
    new = begun(other)
    assert put(other, new, 1, 1)
    assert store.claim(fresh("k")) == (now(store, run), True)


@pytest.mark.parametrize("key", [None, "k"])
def test_who_was_taken_for_dead_may_begin_runs_before_it_ticks(
    store: RunDatabase, other: RunDatabase, clock: Clock, key: str | None
) -> None:
    store.leases.tick()
    for _ in range(6):
        clock.now += 1
        store.leases.tick()
    run = begun(other, fresh(key))
    assert put(other, run, 1, 1)
    clock.now += 1
    assert store.leases.tick() == []


def test_what_the_dead_wrote_is_inherited_once(
    path: Path, store: RunDatabase, other: RunDatabase, clock: Clock
) -> None:
    store.leases.tick()
    run, plain = begun(other, fresh("k", successor=b"go on")), begun(other)
    put(other, run, 1, 2)
    ended = []
    for _ in range(6):
        clock.now += 1
        ended += store.leases.tick()
    assert [each.key for each in ended] == [plain.key]
    with opened(path, clock=clock) as heir:
        assert store.leases.inherit([run.key]) == ([], []), "it believes to write it"
        ((inherited, successor),) = heir.leases.inherit([]).inherited
        assert inherited._replace(notes=b"") == now(store, run)._replace(
            size=append_of(run.key, 1, frames_of(1, 2)).size
        )
        assert inherited.notes == append_of(run.key, 1, frames_of(1, 2)).notes[-1]
        assert successor == b"go on"
        assert store.leases.inherit([]) == ([], [])
        assert not put(other, run, 3, 1)
        other.leases.tick()
        assert other.leases.taken_by_others([run.key]) == [run.key]
        assert other.end(run.key, STOPPED.ending(), unless_passed_on=True) == (
            now(store, run),
            False,
        )
        assert put(heir, run, 3, 1)
        assert heir.leases.taken_by_others([run.key]) == []
        for _ in range(6):
            clock.now += 1
            ended += store.leases.tick()
        assert [each.key for each in ended] == [plain.key, run.key]
        assert store.leases.inherit([]) == ([], [])


def test_who_was_taken_for_dead_keeps_what_none_inherited(
    store: RunDatabase, other: RunDatabase, clock: Clock
) -> None:
    store.leases.tick()
    run, token = begun(other, fresh(successor=b"go on")), other.leases.token
    for _ in range(6):
        clock.now += 1
        assert store.leases.tick() == []
    assert other.leases.inherit([]) == ([], [])
    other.leases.tick()
    assert other.leases.token != token
    assert other.leases.taken_by_others([run.key]) == []
    assert put(other, run, 1, 1)
    assert store.leases.inherit([]) == ([], [])


def test_what_is_passed_on_waits_for_a_time(
    store: RunDatabase, other: RunDatabase, clock: Clock
) -> None:
    run = begun(store, fresh(successor=b"go on"))
    for writer, heir in ((store, other), (other, store), (store, other)):
        assert writer.leases.pass_on() == [run.key]
        assert heir.leases.others_have_left()
        clock.now += DAY
        assert [each for each, _ in heir.leases.inherit([]).inherited] == [run]
        assert not heir.leases.others_have_left()
        assert not put(writer, run, 1, 1)
    other.leases.pass_on()
    clock.now += DAY + 1
    inherited, (ended,) = store.leases.inherit([])
    assert inherited == []
    assert code_of(ended) == "interrupted"


# -- viewers ---------------------------------------------------------------------------------------


def test_who_watches_keeps_a_run_from_being_ended(store: RunDatabase, other: RunDatabase) -> None:
    run = begun(store)
    assert not store.leases.others_are_attached()
    assert other.leases.attach(run.key) == run
    assert other.leases.attach(run.key) == run
    assert store.leases.others_are_attached()
    assert not other.leases.others_are_attached()
    spared = end(store, run.key, STOPPED, unless_attached=True)
    assert spared is not None
    assert spared.ended is None
    other.leases.detach(run.key)
    other.leases.detach(run.key)
    assert not store.leases.others_are_attached()
    ended = end(store, run.key, STOPPED, unless_attached=True)
    assert ended is not None
    assert ended.ended == 1


def test_a_writer_that_watches_its_own_run_is_nobody_else(store: RunDatabase) -> None:
    run = begun(store)
    assert store.leases.attach(run.key) == run
    assert outcome_of(end(store, run.key, STOPPED, unless_attached=True)) == STOPPED


def test_a_watcher_that_is_dead_watches_no_more(
    store: RunDatabase, other: RunDatabase, clock: Clock
) -> None:
    run = begun(store)
    other.leases.attach(run.key)
    clock.now += 6
    assert outcome_of(end(store, run.key, STOPPED, unless_attached=True)) == STOPPED


def test_nobody_watches_what_has_ended(store: RunDatabase, other: RunDatabase) -> None:
    """Otherwise each append of all other runs would wake them, until that run is deleted."""
    run = begun(store)
    other.leases.attach(run.key)
    finish(store, run)
    assert not store.leases.others_are_attached()


def test_a_watched_run_can_be_stopped(store: RunDatabase, other: RunDatabase) -> None:
    run = begun(store)
    other.leases.attach(run.key)
    assert outcome_of(end(store, run.key, STOPPED)) == STOPPED


def test_what_has_ended_or_is_gone_is_not_watched(store: RunDatabase, other: RunDatabase) -> None:
    run = begun(store)
    ended = finish(store, run)
    assert other.leases.attach(run.key) == ended
    assert other.leases.attach(10**6) is None
    assert not store.leases.others_are_attached()


def test_following(store: RunDatabase, other: RunDatabase) -> None:
    one, two = begun(store), begun(store)
    assert other.follow([one.key, two.key, 10**6]) == [one, two]
    assert not other.changed()
    put(store, one, 1, 3)
    assert other.changed()
    ended = finish(store, two)
    found = {run.key: run for run in other.follow([two.key, one.key])}
    assert found[one.key].last == 3
    assert found[two.key] == ended
    assert not other.changed()
    put(other, begun(other), 1, 1)
    assert not other.changed(), "its own"
    assert other.follow([]) == []


# -- notes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["writer", "with frames", "stop", "leave", "death"])
def test_whoever_ends_a_run_leaves_the_notes_of_its_last_frame(
    store: RunDatabase, other: RunDatabase, clock: Clock, by: str
) -> None:
    run = begun(store)
    put(store, run, 1, 100)
    notes = [b"note %d" % number for number in range(1, 4)]
    last = RunAppend(run.key, 101, frames_of(101, 3), notes, size_of(frames_of(1, 103)))
    if by == "with frames":
        last.ending = FINISHED.ending()
    assert is_stored(store, last)
    if by == "writer":
        finish(store, run)
    elif by == "stop":
        end(other, run.key, STOPPED)
    elif by == "leave":
        store.leases.leave()
    elif by == "death":
        for _ in range(10):
            clock.now += 1
            other.leases.tick()
    ended = now(other, run)
    assert (ended.ended, ended.notes) == (104, b"note 3")
    assert other.find(run.id, "alice") == ended


def test_a_run_without_a_frame_has_no_notes(store: RunDatabase) -> None:
    ended = end(store, begun(store).key, STOPPED)
    assert ended is not None
    assert ended.notes == b""


def test_of_some_runs_only_the_end_is_given(store: RunDatabase) -> None:
    run, quiet, ended = begun(store), begun(store), begun(store)
    for each in (run, quiet, ended):
        put(store, each, 1, 3)
    finish(store, ended)
    whole, begins, ends = store.follow([run.key], [quiet.key, ended.key])
    assert whole == now(store, run)
    assert begins == now(store, quiet)._replace(last=0)
    assert ends == now(store, ended)


def test_what_is_written_behind_a_forgotten_run_is_found(store: RunDatabase, clock: Clock) -> None:
    """The newest place is not given out again: a run that goes on looks behind where it began."""
    for _ in range(3):
        forgotten = begun(store)
        put(store, forgotten, 1, 1100)  # more than a block
        going_on = begun(store)
        end(store, forgotten.key, FINISHED)
        clock.now += DAY + 1
        store.leases.tick()
        assert store.trim()
        put(store, going_on, 1, 3)
        assert numbers(everything(store, going_on)) == [1, 2, 3]
        assert now(store, going_on).last == 3
        end(store, going_on.key, FINISHED)
    with store.using() as database:
        (left,) = database.execute("SELECT count(*) FROM frames WHERE run = 0").fetchone()
    assert left <= 1, "what keeps the place is forgotten in turn"


def test_many_runs_of_a_dead_process_are_ended_some_at_a_time(
    store: RunDatabase, other: RunDatabase, clock: Clock
) -> None:
    runs = [begun(other) for _ in range(leases._END_RUNS + 10)]
    ended = []
    for _ in range(6):
        clock.now += 1
        ended += store.leases.tick()
    while again := store.leases.tick():
        ended += again
    assert sorted(run.key for run in ended) == [run.key for run in runs]
