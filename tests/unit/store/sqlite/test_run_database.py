"""A database of runs: who may write what, and that every run ends once."""

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
    fresh,
    is_stored,
    now,
    numbers,
    opened,
    outcome_of,
    put,
    told,
)

FAILED = CompletionOutcome.failed(Failure("broken", code="broken"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "runs.db"


@pytest.fixture
def log(path: Path, clock: Clock) -> Iterator[RunDatabase]:
    with opened(path, clock=clock) as log:
        yield log


@pytest.fixture
def other(log: RunDatabase, path: Path, clock: Clock) -> Iterator[RunDatabase]:
    """What another process has of the same file."""
    assert log.leases.token
    with opened(path, clock=clock) as other:
        yield other


# -- claims ----------------------------------------------------------------------------------------


def test_a_fresh_run_is_found_by_its_owner_alone(log: RunDatabase, other: RunDatabase) -> None:
    run = begun(log, fresh(subject="alice"))
    assert (run.last, run.ended, run.outcome) == (0, None, None)
    assert log.find(run.id, "alice") == other.find(run.id, "alice") == run
    assert log.find(run.id, "bob") is None
    assert log.find("f" * 32, "alice") is None


def test_runs_without_a_key_are_never_the_same(log: RunDatabase) -> None:
    assert begun(log).key != begun(log).key


def test_a_repeated_key_finds_the_run_and_another_content_is_told(
    log: RunDatabase, other: RunDatabase
) -> None:
    run = begun(log, fresh("k", b"content"))
    for connection in (log, other):
        assert connection.claim(fresh("k", b"content")) == (run, True)
        assert connection.claim(fresh("k", b"other")) == KeyReused("k")
    begun(other, fresh("l", b"content"))


@pytest.mark.parametrize("outcome", [FINISHED, FAILED, STOPPED])
def test_a_key_finds_a_run_that_has_ended(log: RunDatabase, outcome: CompletionOutcome) -> None:
    run = begun(log, fresh("k"))
    put(log, run, 1, 2)
    ended = finish(log, run, outcome)
    assert log.claim(fresh("k")) == (ended, True)


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
    log: RunDatabase, other: RunDatabase, outcome: CompletionOutcome, again: bool, by: str
) -> None:
    run = begun(log, fresh("k"))
    ended = finish(log, run, outcome) if by == "its writer" else end(other, run.key, outcome)
    claimed = other.claim(fresh("k"))
    assert isinstance(claimed, tuple)
    assert (claimed[0].key == run.key, claimed[1]) == (not again, not again)
    # Of many repetitions one begins the run, and the others find it.
    assert log.claim(fresh("k")) == (claimed[0], True)
    assert log.find(run.id, "alice") == ended, "it can be looked at all the same"


def test_running_runs_are_counted_over_all_processes(log: RunDatabase, other: RunDatabase) -> None:
    first, _ = begun(log, fresh(most=2)), begun(other, fresh("k", most=2))
    for key in (None, "l"):
        for connection in (log, other):
            assert connection.claim(fresh(key, most=2)) == TooMany(2)
    # Those that are found are no further ones, and another account has its own.
    assert isinstance(log.claim(fresh("k", most=2)), tuple)
    begun(log, fresh(account="bob", most=1))
    finish(log, first)
    begun(other, fresh("l", most=2))
    assert log.claim(fresh(most=2)) == TooMany(2)


def test_none_may_be_none(log: RunDatabase) -> None:
    assert log.claim(fresh(most=0)) == TooMany(0)
    assert log.claim(fresh("k", most=0)) == TooMany(0)


def test_the_key_of_a_run_of_long_ago_is_free_again(
    path: Path, log: RunDatabase, clock: Clock
) -> None:
    with opened(path, seconds=100, clock=clock) as log:
        run = begun(log, fresh("k", b"content"))
        clock.now += 1000
        assert log.claim(fresh("k", b"content")) == (run, True), "while it runs it is known"
        ended = finish(log, run)
        clock.now += 100
        assert log.claim(fresh("k", b"content")) == (ended, True)
        clock.now += 1
        again = begun(log, fresh("k", b"other"))
        # Nobody has come to forget the old one; that must not take the new one's key.
        assert log.trim()
        assert log.claim(fresh("k", b"other")) == (again, True)


# -- appends ---------------------------------------------------------------------------------------


def test_frames_come_back_as_they_were(log: RunDatabase, other: RunDatabase) -> None:
    run = begun(log)
    frames = [b"", b"\x00", bytes(range(256)), "\N{PILE OF POO}".encode(), b"x" * 1_000_000]
    assert is_stored(log, append_of(run.key, 1, frames))
    assert everything(other, run) == list(enumerate(frames, 1))
    assert now(other, run).last == 5


def test_pages_are_bounded_in_number_and_size(log: RunDatabase) -> None:
    run = begun(log)
    put(log, run, 1, 20)
    assert numbers(log.frames(run.key, 0, 7)) == list(range(1, 8))
    assert numbers(log.frames(run.key, 18, 7)) == [19, 20]
    assert log.frames(run.key, 20, 7) == log.frames(run.key + 1, 0, 7) == []
    large = begun(log)
    log.append([append_of(large.key, 1, [b"x" * 100_000] * 10)])
    assert numbers(log.frames(large.key, 0, 10)) == [1, 2, 3]
    assert numbers(everything(log, large)) == list(range(1, 11))


@pytest.mark.parametrize("amount", [1, 63, 64, 65, 128, 200])
def test_any_number_of_frames_in_one_append(log: RunDatabase, amount: int) -> None:
    run, beside = begun(log), begun(log)
    frames = told(1, amount)
    refused, (ended,) = log.append(
        [append_of(run.key, 1, frames), append_of(beside.key, 1, [b"beside"], FINISHED)]
    )
    assert (refused, ended.key, ended.last, ended.ended) == ([], beside.key, 1, 2)
    assert (now(log, run).last, now(log, run).ended) == (amount, None)
    assert everything(log, run) == list(enumerate(frames, 1))
    assert everything(log, beside) == [(1, b"beside")]


def test_nobody_writes_into_a_run_of_another_process(log: RunDatabase, other: RunDatabase) -> None:
    run, own = begun(log), begun(other)
    put(log, run, 1, 2)
    assert not put(other, run, 3, 1)
    assert finish(other, run) is None
    # What may be written in the same batch is.
    appends = [
        append_of(own.key, 1, told(1, 2)),
        append_of(run.key, 3, told(3, 90)),
        append_of(10**6, 1, told(1, 1)),
        append_of(own.key, 3, told(3, 1), FINISHED),
    ]
    assert other.append(appends) == (appends[1:3], [now(other, own)])
    assert numbers(everything(log, run)) == [1, 2]
    assert numbers(everything(log, own)) == [1, 2, 3]
    assert now(log, run).ended is None
    assert now(log, own).ended == 4


def test_what_was_ended_by_another_in_between_takes_no_more(
    log: RunDatabase, other: RunDatabase
) -> None:
    run, beside = begun(log), begun(log)
    put(log, run, 1, 3)
    stopped = end(other, run.key, STOPPED)
    assert stopped is not None
    assert stopped.ended == 4
    appends = [append_of(run.key, 4, told(4, 2)), append_of(beside.key, 1, told(1, 1))]
    assert log.append(appends) == (appends[:1], [])
    assert not is_stored(log, append_of(run.key, 4, told(4, 2), FINISHED))
    assert finish(log, run) is None
    assert now(other, run) == stopped
    assert numbers(everything(other, run)) == [1, 2, 3]


def test_an_append_of_nothing_but_the_end(log: RunDatabase) -> None:
    run = begun(log)
    ended = finish(log, run)
    assert ended is not None
    assert (ended.id, ended.label, ended.last, ended.ended) == (run.id, run.label, 0, 1)
    assert outcome_of(ended) == FINISHED
    assert log.find(run.id, "alice") == ended


def test_an_append_of_nothing_at_all_is_harmless(log: RunDatabase) -> None:
    run = begun(log)
    put(log, run, 1, 2)
    assert is_stored(log, append_of(run.key, 3, []))
    assert now(log, run).last == 2
    assert log.append([]) == ([], [])


def test_frames_and_the_end_in_one(log: RunDatabase) -> None:
    run = begun(log)
    put(log, run, 1, 1)
    refused, (ended,) = log.append([append_of(run.key, 2, told(2, 2), FINISHED)])
    assert (refused, ended.last, ended.ended) == ([], 3, 4)


# -- one end ---------------------------------------------------------------------------------------


def test_a_run_ends_once_whoever_is_first(log: RunDatabase, other: RunDatabase) -> None:
    run = begun(log)
    put(log, run, 1, 1)
    first = end(other, run.key, STOPPED)
    assert end(log, run.key, FAILED) == first
    assert end(other, run.key, STOPPED) == first
    assert finish(log, run) is None
    assert log.leases.leave() == []
    assert outcome_of(first).kind == "stopped"
    ended = finish(log, again := begun(log))
    assert end(other, again.key, STOPPED) == ended
    assert outcome_of(ended).kind == "finished"
    assert end(log, 10**6, STOPPED) is None


def test_a_process_that_goes_ends_what_it_writes(log: RunDatabase, other: RunDatabase) -> None:
    run, ended, others = begun(log), begun(log), begun(other)
    put(log, run, 1, 2)
    finish(log, ended)
    (left,) = log.leases.leave()
    assert (left.key, left.ended, code_of(left)) == (run.key, 3, "interrupted")
    assert not put(log, run, 3, 1)
    assert now(log, others).ended is None
    assert log.leases.leave() == []
    # It may begin anew, whichever way.
    again = begun(log)
    assert put(log, again, 1, 1)
    log.leases.leave()
    assert put(log, begun(log, fresh("k")), 1, 1) is not None


def test_who_has_sent_its_viewers_away_keeps_them_in_mind(
    log: RunDatabase, other: RunDatabase, clock: Clock
) -> None:
    run = begun(log)
    other.leases.attach(run.key)
    other.leases.leave()
    clock.now += 4  # on their way to this process
    spared = end(log, run.key, STOPPED, unless_attached=True)
    assert spared is not None
    assert spared.ended is None
    clock.now += 2
    assert outcome_of(end(log, run.key, STOPPED, unless_attached=True)) == STOPPED


# -- who is alive ----------------------------------------------------------------------------------


def test_the_runs_of_a_dead_process_are_ended_once(
    path: Path, log: RunDatabase, other: RunDatabase, clock: Clock
) -> None:
    with opened(path, clock=clock) as third:
        for connection in (log, third):
            assert connection.leases.tick() == []
        run, finished, own = begun(other), begun(other), begun(log)
        put(other, run, 1, 2)
        finish(other, finished)
        ended = []
        for _ in range(6):
            clock.now += 1
            for connection in (log, third):
                ended += connection.leases.tick()
        assert [(each.key, each.ended, code_of(each)) for each in ended] == [
            (run.key, 3, "interrupted")
        ]
        assert now(log, run) == ended[0]
        assert numbers(everything(log, run)) == [1, 2], "what it has said stays"
        assert now(log, own).ended is None


def test_a_process_is_not_dead_for_less_than_five_seconds(
    log: RunDatabase, other: RunDatabase, clock: Clock
) -> None:
    log.leases.tick()
    run = begun(other)
    for _ in range(5):
        clock.now += 1
        assert log.leases.tick() == []
    other.leases.tick()
    for _ in range(5):
        clock.now += 1
        assert log.leases.tick() == []
    assert put(other, run, 1, 1)


def test_who_was_away_does_not_judge(log: RunDatabase, other: RunDatabase, clock: Clock) -> None:
    run, own = begun(other), begun(log)
    log.leases.tick()
    other.leases.tick()
    clock.now += 60  # the machine has slept
    assert log.leases.tick() == []
    assert other.leases.tick() == []
    clock.now += 1
    assert log.leases.tick() == other.leases.tick() == []
    assert put(other, run, 1, 1)
    assert put(log, own, 1, 1)


@pytest.mark.parametrize("in_use", [True, False])
def test_who_could_not_write_does_not_judge(
    log: RunDatabase, other: RunDatabase, clock: Clock, in_use: bool
) -> None:
    """Nobody could, and who gets to it first would find all the others dead."""
    run = begun(other)
    assert log.leases.tick(in_use) == other.leases.tick() == []
    for connection in (log, other):
        writable(connection, False)
    for _ in range(8):
        clock.now += 1
        with contextlib.suppress(StoreError):
            assert log.leases.tick(in_use) == []
        with pytest.raises(StoreError):
            other.leases.tick()
    for connection in (log, other):
        writable(connection, True)
    for _ in range(2):
        clock.now += 1
        assert log.leases.tick(in_use) == []
    assert other.leases.tick() == []
    assert put(other, run, 1, 1)
    ended = []
    for _ in range(7):
        clock.now += 1
        ended += log.leases.tick(in_use)
    assert [each.key for each in ended] == [run.key], "later it does"


def writable(log: RunDatabase, whether: bool) -> None:
    with log.using() as database:
        database.execute(f"PRAGMA query_only = {'off' if whether else 'on'}").fetchone()


def test_a_process_that_begins_does_not_judge_at_once(
    path: Path, log: RunDatabase, clock: Clock
) -> None:
    run = begun(log)
    clock.now += 60
    with opened(path, clock=clock) as new:
        assert new.leases.tick() == []
        clock.now += 1
        assert [each.key for each in new.leases.tick()] == [run.key]


def test_who_was_taken_for_dead_gets_a_new_token_and_its_old_runs_are_lost(
    log: RunDatabase, other: RunDatabase, clock: Clock
) -> None:
    log.leases.tick()
    run, token = begun(other, fresh("k")), other.leases.token
    put(other, run, 1, 1)
    for _ in range(6):
        clock.now += 1
        log.leases.tick()
    assert not put(other, run, 2, 1), "before it knows"
    assert other.leases.tick() == []
    assert other.leases.token != token
    assert not put(other, run, 2, 1)
    assert finish(other, run) is None
    assert code_of(now(log, run)) == "interrupted"
    assert numbers(everything(log, run)) == [1]
    new = begun(other)
    assert put(other, new, 1, 1)
    assert log.claim(fresh("k")) == (now(log, run), True)


@pytest.mark.parametrize("key", [None, "k"])
def test_who_was_taken_for_dead_may_begin_runs_before_it_ticks(
    log: RunDatabase, other: RunDatabase, clock: Clock, key: str | None
) -> None:
    log.leases.tick()
    for _ in range(6):
        clock.now += 1
        log.leases.tick()
    run = begun(other, fresh(key))
    assert put(other, run, 1, 1)
    clock.now += 1
    assert log.leases.tick() == []


# -- viewers ---------------------------------------------------------------------------------------


def test_who_watches_keeps_a_run_from_being_ended(log: RunDatabase, other: RunDatabase) -> None:
    run = begun(log)
    assert not log.leases.others_are_attached()
    assert other.leases.attach(run.key) == run
    assert other.leases.attach(run.key) == run
    assert log.leases.others_are_attached()
    assert not other.leases.others_are_attached()
    spared = end(log, run.key, STOPPED, unless_attached=True)
    assert spared is not None
    assert spared.ended is None
    other.leases.detach(run.key)
    other.leases.detach(run.key)
    assert not log.leases.others_are_attached()
    ended = end(log, run.key, STOPPED, unless_attached=True)
    assert ended is not None
    assert ended.ended == 1


def test_a_writer_that_watches_its_own_run_is_nobody_else(log: RunDatabase) -> None:
    run = begun(log)
    assert log.leases.attach(run.key) == run
    assert outcome_of(end(log, run.key, STOPPED, unless_attached=True)) == STOPPED


def test_a_watcher_that_is_dead_watches_no_more(
    log: RunDatabase, other: RunDatabase, clock: Clock
) -> None:
    run = begun(log)
    other.leases.attach(run.key)
    clock.now += 6
    assert outcome_of(end(log, run.key, STOPPED, unless_attached=True)) == STOPPED


def test_nobody_watches_what_has_ended(log: RunDatabase, other: RunDatabase) -> None:
    """Or each append of all other runs would ring for them, until that run is forgotten."""
    run = begun(log)
    other.leases.attach(run.key)
    finish(log, run)
    assert not log.leases.others_are_attached()


def test_a_watched_run_can_be_stopped(log: RunDatabase, other: RunDatabase) -> None:
    run = begun(log)
    other.leases.attach(run.key)
    assert outcome_of(end(log, run.key, STOPPED)) == STOPPED


def test_what_has_ended_or_is_gone_is_not_watched(log: RunDatabase, other: RunDatabase) -> None:
    run = begun(log)
    ended = finish(log, run)
    assert other.leases.attach(run.key) == ended
    assert other.leases.attach(10**6) is None
    assert not log.leases.others_are_attached()


def test_following(log: RunDatabase, other: RunDatabase) -> None:
    one, two = begun(log), begun(log)
    assert other.follow([one.key, two.key, 10**6]) == [one, two]
    assert not other.changed()
    put(log, one, 1, 3)
    assert other.changed()
    ended = finish(log, two)
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
    log: RunDatabase, other: RunDatabase, clock: Clock, by: str
) -> None:
    run = begun(log)
    put(log, run, 1, 100)
    notes = [b"note %d" % number for number in range(1, 4)]
    last = RunAppend(run.key, 101, told(101, 3), notes, size_of(told(1, 103)))
    if by == "with frames":
        last.ending = FINISHED.ending()
    assert is_stored(log, last)
    if by == "writer":
        finish(log, run)
    elif by == "stop":
        end(other, run.key, STOPPED)
    elif by == "leave":
        log.leases.leave()
    elif by == "death":
        for _ in range(10):
            clock.now += 1
            other.leases.tick()
    ended = now(other, run)
    assert (ended.ended, ended.notes) == (104, b"note 3")
    assert other.find(run.id, "alice") == ended


def test_a_run_without_a_frame_has_no_notes(log: RunDatabase) -> None:
    ended = end(log, begun(log).key, STOPPED)
    assert ended is not None
    assert ended.notes == b""


def test_of_some_runs_only_the_end_is_told(log: RunDatabase) -> None:
    run, quiet, ended = begun(log), begun(log), begun(log)
    for each in (run, quiet, ended):
        put(log, each, 1, 3)
    finish(log, ended)
    whole, begins, ends = log.follow([run.key], [quiet.key, ended.key])
    assert whole == now(log, run)
    assert begins == now(log, quiet)._replace(last=0)
    assert ends == now(log, ended)


def test_what_is_written_behind_a_forgotten_run_is_found(log: RunDatabase, clock: Clock) -> None:
    """The newest place is not given out again: a run that goes on looks behind where it began."""
    for _ in range(3):
        forgotten = begun(log)
        put(log, forgotten, 1, 1100)  # more than a block
        going_on = begun(log)
        end(log, forgotten.key, FINISHED)
        clock.now += DAY + 1
        log.leases.tick()
        assert log.trim()
        put(log, going_on, 1, 3)
        assert numbers(everything(log, going_on)) == [1, 2, 3]
        assert now(log, going_on).last == 3
        end(log, going_on.key, FINISHED)
    with log.using() as database:
        (left,) = database.execute("SELECT count(*) FROM frames WHERE run = 0").fetchone()
    assert left <= 1, "what keeps the place is forgotten in turn"


def test_many_runs_of_a_dead_process_are_ended_some_at_a_time(
    log: RunDatabase, other: RunDatabase, clock: Clock
) -> None:
    runs = [begun(other) for _ in range(leases._END_RUNS + 10)]
    ended = []
    for _ in range(6):
        clock.now += 1
        ended += log.leases.tick()
    while again := log.leases.tick():
        ended += again
    assert sorted(run.key for run in ended) == [run.key for run in runs]
