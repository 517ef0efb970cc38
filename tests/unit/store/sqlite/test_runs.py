"""The log of runs: who may write what, and that every run ends once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sseflask.completions import usage
from sseflask.completions.dialects import RESPONSES
from sseflask.completions.failures import interrupted
from sseflask.completions.frame_splitter import message
from sseflask.completions.outcome import Outcome
from sseflask.errors import Failure
from sseflask.store.api import KeyReused, StoreError
from sseflask.store.run_api import Append, TooMany
from sseflask.store.sqlite import leases as run_peers
from sseflask.store.sqlite import runs as run_log
from sseflask.store.sqlite.run_ends import with_usage
from sseflask.store.sqlite.runs import RunLog
from tests.contract.run_stores import (
    DAY,
    FINISHED,
    STOPPED,
    Clock,
    begun,
    code_of,
    everything,
    finish,
    fresh,
    now,
    numbers,
    opened,
    outcome_of,
    put,
    told,
)
from tests.scripted_upstream import event, frame

FAILED = Outcome.failed(Failure("broken", code="broken"))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "runs.db"


@pytest.fixture
def log(path: Path, clock: Clock) -> Iterator[RunLog]:
    with opened(path, clock=clock) as log:
        yield log


@pytest.fixture
def other(log: RunLog, path: Path, clock: Clock) -> Iterator[RunLog]:
    """What another process has of the same file."""
    assert log.token
    with opened(path, clock=clock) as other:
        yield other


# -- claims ----------------------------------------------------------------------------------------


def test_a_fresh_run_is_found_by_its_owner_alone(log: RunLog, other: RunLog) -> None:
    run = begun(log, fresh(subject="alice"))
    assert (run.last, run.ended, run.outcome) == (0, None, None)
    assert log.find(run.id, "alice") == other.find(run.id, "alice") == run
    assert log.find(run.id, "bob") is None
    assert log.find("f" * 32, "alice") is None


def test_runs_without_a_key_are_never_the_same(log: RunLog) -> None:
    assert begun(log).number != begun(log).number


def test_a_repeated_key_finds_the_run_and_another_content_is_told(
    log: RunLog, other: RunLog
) -> None:
    run = begun(log, fresh("k", b"content"))
    for connection in (log, other):
        assert connection.claim(fresh("k", b"content")) == (run, True)
        assert connection.claim(fresh("k", b"other")) == KeyReused("k")
    begun(other, fresh("l", b"content"))


@pytest.mark.parametrize("outcome", [FINISHED, FAILED, STOPPED])
def test_a_key_finds_a_run_that_has_ended(log: RunLog, outcome: Outcome) -> None:
    run = begun(log, fresh("k"))
    put(log, run, 1, 2)
    ended = finish(log, run, outcome)
    assert log.claim(fresh("k")) == (ended, True)


def refusal(status: int, **headers: str) -> Outcome:
    return Outcome.failed(Failure("no", status=status, headers=headers))


@pytest.mark.parametrize("by", ["its writer", "somebody else"])
@pytest.mark.parametrize(
    ("outcome", "again"),
    [
        *((refusal(status), True) for status in (408, 425, 429, 500, 502, 503, 504)),
        *((refusal(status), False) for status in (400, 401, 403, 404, 409, 413, 422)),
        (refusal(500, **{"x-should-retry": "false"}), False),
        (refusal(400, **{"X-Should-Retry": "true"}), True),
        (Outcome.failed(interrupted()), True),
        (STOPPED, False),
        (Outcome("cancelled"), False),
        (FINISHED, False),
    ],
)
def test_a_passing_failure_before_the_first_frame_uses_no_key_up(
    log: RunLog, other: RunLog, outcome: Outcome, again: bool, by: str
) -> None:
    run = begun(log, fresh("k"))
    ended = finish(log, run, outcome) if by == "its writer" else other.end(run.number, outcome)
    claimed = other.claim(fresh("k"))
    assert isinstance(claimed, tuple)
    assert (claimed[0].number == run.number, claimed[1]) == (not again, not again)
    # Of many repetitions one begins the run, and the others find it.
    assert log.claim(fresh("k")) == (claimed[0], True)
    assert log.find(run.id, "alice") == ended, "it can be looked at all the same"


def test_running_runs_are_counted_over_all_processes(log: RunLog, other: RunLog) -> None:
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


def test_none_may_be_none(log: RunLog) -> None:
    assert log.claim(fresh(most=0)) == TooMany(0)
    assert log.claim(fresh("k", most=0)) == TooMany(0)


def test_the_key_of_a_run_of_long_ago_is_free_again(path: Path, log: RunLog, clock: Clock) -> None:
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


def test_frames_come_back_as_they_were(log: RunLog, other: RunLog) -> None:
    run = begun(log)
    frames = [b"", b"\x00", bytes(range(256)), "\N{PILE OF POO}".encode(), b"x" * 1_000_000]
    (result,) = log.append([Append(run.number, 1, frames)])
    assert result is not None
    assert (result.number, result.last, result.ended) == (run.number, 5, None)
    assert everything(other, run) == list(enumerate(frames, 1))
    assert now(other, run).last == 5


def test_pages_are_bounded_in_number_and_size(log: RunLog) -> None:
    run = begun(log)
    put(log, run, 1, 20)
    assert numbers(log.frames(run.number, 0, 7)) == list(range(1, 8))
    assert numbers(log.frames(run.number, 18, 7)) == [19, 20]
    assert log.frames(run.number, 20, 7) == log.frames(run.number + 1, 0, 7) == []
    large = begun(log)
    log.append([Append(large.number, 1, [b"x" * 100_000] * 10)])
    assert numbers(log.frames(large.number, 0, 10)) == [1, 2, 3]
    assert numbers(everything(log, large)) == list(range(1, 11))


@pytest.mark.parametrize("amount", [1, 63, 64, 65, 128, 200])
def test_any_number_of_frames_in_one_append(log: RunLog, amount: int) -> None:
    run, beside = begun(log), begun(log)
    frames = told(1, amount)
    results = log.append(
        [Append(run.number, 1, frames), Append(beside.number, 1, [b"beside"], FINISHED)]
    )
    assert [result and (result.last, result.ended) for result in results] == [
        (amount, None),
        (1, 2),
    ]
    assert everything(log, run) == list(enumerate(frames, 1))
    assert everything(log, beside) == [(1, b"beside")]


def test_nobody_writes_into_a_run_of_another_process(log: RunLog, other: RunLog) -> None:
    run, own = begun(log), begun(other)
    put(log, run, 1, 2)
    assert put(other, run, 3, 1) is None
    assert finish(other, run) is None
    # What may be written in the same batch is.
    results = other.append(
        [
            Append(own.number, 1, told(1, 2)),
            Append(run.number, 3, told(3, 90)),
            Append(10**6, 1, told(1, 1)),
            Append(own.number, 3, told(3, 1), FINISHED),
        ]
    )
    assert results[1:3] == [None, None]
    assert [result.last for result in (results[0], results[3]) if result] == [3, 3]
    assert numbers(everything(log, run)) == [1, 2]
    assert numbers(everything(log, own)) == [1, 2, 3]
    assert now(log, run).ended is None
    assert now(log, own).ended == 4


def test_what_was_ended_by_another_in_between_takes_no_more(log: RunLog, other: RunLog) -> None:
    run, beside = begun(log), begun(log)
    put(log, run, 1, 3)
    stopped = other.end(run.number, STOPPED)
    assert stopped is not None
    assert stopped.ended == 4
    results = log.append([Append(run.number, 4, told(4, 2)), Append(beside.number, 1, told(1, 1))])
    assert results[0] is None
    assert results[1] is not None
    assert log.append([Append(run.number, 4, told(4, 2), FINISHED)]) == [None]
    assert finish(log, run) is None
    assert now(other, run) == stopped
    assert numbers(everything(other, run)) == [1, 2, 3]


def test_an_append_of_nothing_but_the_end(log: RunLog) -> None:
    run = begun(log)
    ended = finish(log, run)
    assert ended is not None
    assert (ended.id, ended.dialect, ended.last, ended.ended) == (run.id, run.dialect, 0, 1)
    assert outcome_of(ended) == FINISHED
    assert log.find(run.id, "alice") == ended


def test_an_append_of_nothing_at_all_is_harmless(log: RunLog) -> None:
    run = begun(log)
    put(log, run, 1, 2)
    (result,) = log.append([Append(run.number, 3, [])])
    assert result is not None
    assert (result.last, now(log, run).last) == (2, 2)
    assert log.append([]) == []


def test_frames_and_the_end_in_one(log: RunLog) -> None:
    run = begun(log)
    put(log, run, 1, 1)
    (ended,) = log.append([Append(run.number, 2, told(2, 2), FINISHED)])
    assert ended is not None
    assert (ended.last, ended.ended) == (3, 4)


# -- one end ---------------------------------------------------------------------------------------


def test_a_run_ends_once_whoever_is_first(log: RunLog, other: RunLog) -> None:
    run = begun(log)
    put(log, run, 1, 1)
    first = other.end(run.number, STOPPED)
    assert log.end(run.number, FAILED) == first
    assert other.end(run.number, STOPPED) == first
    assert finish(log, run) is None
    assert log.leave() == []
    assert outcome_of(first).kind == "stopped"
    ended = finish(log, again := begun(log))
    assert other.end(again.number, STOPPED) == ended
    assert outcome_of(ended).kind == "finished"
    assert log.end(10**6, STOPPED) is None


def test_an_upstream_writes_no_lines_into_our_log(
    log: RunLog, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "sseflask")
    finish(log, begun(log), Outcome("finished", "stop\nrun 1: stopped" + "!" * 1000))
    (message,) = [record.getMessage() for record in caplog.records]
    assert r"(stop\nrun 1: stopped!!" in message
    assert len(message) < 300
    assert message.isprintable()


def test_a_process_that_goes_ends_what_it_writes(log: RunLog, other: RunLog) -> None:
    run, ended, others = begun(log), begun(log), begun(other)
    put(log, run, 1, 2)
    finish(log, ended)
    (left,) = log.leave()
    assert (left.number, left.ended, code_of(left)) == (run.number, 3, "interrupted")
    assert put(log, run, 3, 1) is None
    assert now(log, others).ended is None
    assert log.leave() == []
    # It may begin anew, whichever way.
    again = begun(log)
    assert put(log, again, 1, 1) is not None
    log.leave()
    assert put(log, begun(log, fresh("k")), 1, 1) is not None


def test_who_has_sent_its_viewers_away_keeps_them_in_mind(
    log: RunLog, other: RunLog, clock: Clock
) -> None:
    run = begun(log)
    other.watch(run.number)
    other.leave()
    clock.now += 4  # on their way to this process
    spared = log.end(run.number, STOPPED, unless_watched=True)
    assert spared is not None
    assert spared.ended is None
    clock.now += 2
    assert outcome_of(log.end(run.number, STOPPED, unless_watched=True)) == STOPPED


# -- who is alive ----------------------------------------------------------------------------------


def test_the_runs_of_a_dead_process_are_ended_once(
    path: Path, log: RunLog, other: RunLog, clock: Clock
) -> None:
    with opened(path, clock=clock) as third:
        for connection in (log, third):
            assert connection.tick() == []
        run, finished, own = begun(other), begun(other), begun(log)
        put(other, run, 1, 2)
        finish(other, finished)
        ended = []
        for _ in range(6):
            clock.now += 1
            for connection in (log, third):
                ended += connection.tick()
        assert [(each.number, each.ended, code_of(each)) for each in ended] == [
            (run.number, 3, "interrupted")
        ]
        assert now(log, run) == ended[0]
        assert numbers(everything(log, run)) == [1, 2], "what it has said stays"
        assert now(log, own).ended is None


def test_a_process_is_not_dead_for_less_than_five_seconds(
    log: RunLog, other: RunLog, clock: Clock
) -> None:
    log.tick()
    run = begun(other)
    for _ in range(5):
        clock.now += 1
        assert log.tick() == []
    other.tick()
    for _ in range(5):
        clock.now += 1
        assert log.tick() == []
    assert put(other, run, 1, 1) is not None


def test_who_was_away_does_not_judge(log: RunLog, other: RunLog, clock: Clock) -> None:
    run, own = begun(other), begun(log)
    log.tick()
    other.tick()
    clock.now += 60  # the machine has slept
    assert log.tick() == []
    assert other.tick() == []
    clock.now += 1
    assert log.tick() == other.tick() == []
    assert put(other, run, 1, 1) is not None
    assert put(log, own, 1, 1) is not None


@pytest.mark.parametrize("concerned", [True, False])
def test_who_could_not_write_does_not_judge(
    log: RunLog, other: RunLog, clock: Clock, concerned: bool
) -> None:
    """Nobody could, and who gets to it first would find all the others dead."""
    run = begun(other)
    assert log.tick(concerned) == other.tick() == []
    for connection in (log, other):
        writable(connection, False)
    for _ in range(8):
        clock.now += 1
        with contextlib.suppress(StoreError):
            assert log.tick(concerned) == []
        with pytest.raises(StoreError):
            other.tick()
    for connection in (log, other):
        writable(connection, True)
    for _ in range(2):
        clock.now += 1
        assert log.tick(concerned) == []
    assert other.tick() == []
    assert put(other, run, 1, 1) is not None
    ended = []
    for _ in range(7):
        clock.now += 1
        ended += log.tick(concerned)
    assert [each.number for each in ended] == [run.number], "later it does"


def writable(log: RunLog, whether: bool) -> None:
    with log._file.using() as database:
        database.execute(f"PRAGMA query_only = {'off' if whether else 'on'}").fetchone()


def test_a_process_that_begins_does_not_judge_at_once(
    path: Path, log: RunLog, clock: Clock
) -> None:
    run = begun(log)
    clock.now += 60
    with opened(path, clock=clock) as new:
        assert new.tick() == []
        clock.now += 1
        assert [each.number for each in new.tick()] == [run.number]


def test_who_was_taken_for_dead_gets_a_new_token_and_its_old_runs_are_lost(
    log: RunLog, other: RunLog, clock: Clock
) -> None:
    log.tick()
    run, token = begun(other, fresh("k")), other.token
    put(other, run, 1, 1)
    for _ in range(6):
        clock.now += 1
        log.tick()
    assert put(other, run, 2, 1) is None, "before it knows"
    assert other.tick() == []
    assert other.token != token
    assert put(other, run, 2, 1) is None
    assert finish(other, run) is None
    assert code_of(now(log, run)) == "interrupted"
    assert numbers(everything(log, run)) == [1]
    new = begun(other)
    assert put(other, new, 1, 1) is not None
    assert log.claim(fresh("k")) == (now(log, run), True)


@pytest.mark.parametrize("key", [None, "k"])
def test_who_was_taken_for_dead_may_begin_runs_before_it_ticks(
    log: RunLog, other: RunLog, clock: Clock, key: str | None
) -> None:
    log.tick()
    for _ in range(6):
        clock.now += 1
        log.tick()
    run = begun(other, fresh(key))
    assert put(other, run, 1, 1) is not None
    clock.now += 1
    assert log.tick() == []


# -- viewers ---------------------------------------------------------------------------------------


def test_who_watches_keeps_a_run_from_being_ended(log: RunLog, other: RunLog) -> None:
    run = begun(log)
    assert not log.watched_by_others()
    assert other.watch(run.number) == run
    assert other.watch(run.number) == run
    assert log.watched_by_others()
    assert not other.watched_by_others()
    spared = log.end(run.number, STOPPED, unless_watched=True)
    assert spared is not None
    assert spared.ended is None
    other.unwatch(run.number)
    other.unwatch(run.number)
    assert not log.watched_by_others()
    ended = log.end(run.number, STOPPED, unless_watched=True)
    assert ended is not None
    assert ended.ended == 1


def test_a_writer_that_watches_its_own_run_is_nobody_else(log: RunLog) -> None:
    run = begun(log)
    assert log.watch(run.number) == run
    assert outcome_of(log.end(run.number, STOPPED, unless_watched=True)) == STOPPED


def test_a_watcher_that_is_dead_watches_no_more(log: RunLog, other: RunLog, clock: Clock) -> None:
    run = begun(log)
    other.watch(run.number)
    clock.now += 6
    assert outcome_of(log.end(run.number, STOPPED, unless_watched=True)) == STOPPED


def test_nobody_watches_what_has_ended(log: RunLog, other: RunLog) -> None:
    """Or each append of all other runs would ring for them, until that run is forgotten."""
    run = begun(log)
    other.watch(run.number)
    finish(log, run)
    assert not log.watched_by_others()


def test_a_watched_run_can_be_stopped(log: RunLog, other: RunLog) -> None:
    run = begun(log)
    other.watch(run.number)
    assert outcome_of(log.end(run.number, STOPPED)) == STOPPED


def test_what_has_ended_or_is_gone_is_not_watched(log: RunLog, other: RunLog) -> None:
    run = begun(log)
    ended = finish(log, run)
    assert other.watch(run.number) == ended
    assert other.watch(10**6) is None
    assert not log.watched_by_others()


def test_following(log: RunLog, other: RunLog) -> None:
    one, two = begun(log), begun(log)
    assert other.follow([one.number, two.number, 10**6]) == [one, two]
    assert not other.changed()
    put(log, one, 1, 3)
    assert other.changed()
    ended = finish(log, two)
    found = {run.number: run for run in other.follow([two.number, one.number])}
    assert found[one.number].last == 3
    assert found[two.number] == ended
    assert not other.changed()
    put(other, begun(other), 1, 1)
    assert not other.changed(), "its own"
    assert other.follow([]) == []


# -- what it took ----------------------------------------------------------------------------------

USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


@pytest.mark.parametrize("before", [0, 3, 50])
@pytest.mark.parametrize("after", [0, 1, 9])
def test_the_usage_that_the_upstream_told_is_recorded(log: RunLog, before: int, after: int) -> None:
    run = begun(log)
    frames = [*told(1, before), frame(usage=USAGE), *told(before + 2, after)]
    log.append([Append(run.number, 1, frames)])
    assert outcome_of(finish(log, run)).usage == USAGE


@pytest.mark.parametrize("outcome", [FINISHED, FAILED, STOPPED, Outcome("cancelled")])
def test_else_what_was_streamed_is_recorded_as_partial(log: RunLog, outcome: Outcome) -> None:
    run = begun(log)
    put(log, run, 1, 20)
    ended = log.end(run.number, outcome)
    assert outcome_of(ended).usage == {"completion_tokens": 20, "partial": True}


@pytest.mark.parametrize("by", ["writer", "stop", "leave", "death"])
def test_no_end_parses_in_a_transaction_or_more_than_one_frame(
    log: RunLog, other: RunLog, clock: Clock, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    parsed: list[bytes] = []

    def parse(frame: bytes) -> Any:
        for each in (log, other):
            assert not each._file._opened().in_transaction, "all workers wait"
        parsed.append(frame)
        return message(frame)

    monkeypatch.setattr(usage, "message", parse)
    run = begun(log)
    put(log, run, 1, 100)
    log.append([Append(run.number, 101, [frame(usage=USAGE), *told(102, 100)])])
    if by == "writer":
        finish(log, run)
    elif by == "stop":
        other.end(run.number, STOPPED)
    elif by == "leave":
        log.leave()
    else:
        for _ in range(10):
            clock.now += 1
            other.tick()
    assert outcome_of(now(other, run)).usage == USAGE
    assert parsed == [frame(usage=USAGE)]


def test_what_a_writer_adds_while_somebody_ends_its_run_is_counted(
    log: RunLog, other: RunLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begun(log)
    put(log, run, 1, 1)
    amounts = iter([1, 2])

    def meanwhile(*of: Any) -> Any:
        first = now(log, run).last + 1
        put(log, run, first, next(amounts, 0))
        return with_usage(*of)

    monkeypatch.setattr(run_log, "with_usage", meanwhile)
    ended = other.end(run.number, STOPPED)
    assert outcome_of(ended).usage == {"completion_tokens": 4, "partial": True}
    assert ended == now(log, run)


def test_a_run_that_is_never_still_can_be_ended(
    log: RunLog, other: RunLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begun(log)

    def meanwhile(*of: Any) -> Any:
        put(log, run, now(log, run).last + 1, 1)
        return with_usage(*of)

    monkeypatch.setattr(run_log, "with_usage", meanwhile)
    ended = other.end(run.number, STOPPED)
    assert ended is not None
    assert ended.ended == now(log, run).last + 1


def test_where_nothing_came_nothing_is_recorded(log: RunLog) -> None:
    assert outcome_of(log.end(begun(log).number, STOPPED)).usage is None


def test_the_usage_in_the_last_frame_of_the_responses_api(log: RunLog) -> None:
    run = begun(log, fresh(dialect=RESPONSES))
    last = event("response.completed", response={"usage": {"total_tokens": 5}})
    ended = finish(log, run, Outcome("finished", frame=last))
    assert outcome_of(ended).usage == {"total_tokens": 5}


def test_each_end_is_told_in_the_servers_log(log: RunLog, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "sseflask")
    run, broken = begun(log), begun(log)
    put(log, run, 1, 2)
    for _ in range(2):
        log.end(run.number, STOPPED)
        finish(log, broken, FAILED)
    told_of = [record.getMessage() for record in caplog.records]
    assert told_of == [
        f'run {run.id}: stopped after 2 frames, usage {{"completion_tokens": 2, "partial": true}}',
        f"run {broken.id}: failed (broken) after 0 frames, usage null",
    ]


def test_of_some_runs_only_the_end_is_told(log: RunLog) -> None:
    run, quiet, ended = begun(log), begun(log), begun(log)
    for each in (run, quiet, ended):
        put(log, each, 1, 3)
    finish(log, ended)
    whole, begins, ends = log.follow([run.number], [quiet.number, ended.number])
    assert whole == now(log, run)
    assert begins == now(log, quiet)._replace(last=0)
    assert ends == now(log, ended)


def test_what_is_written_behind_a_forgotten_run_is_found(log: RunLog, clock: Clock) -> None:
    """The newest place is not given out again: a run that goes on looks behind where it began."""
    for _ in range(3):
        forgotten = begun(log)
        put(log, forgotten, 1, 1100)  # more than a block
        going_on = begun(log)
        log.end(forgotten.number, FINISHED)
        clock.now += DAY + 1
        log.tick()
        assert log.trim()
        put(log, going_on, 1, 3)
        assert numbers(everything(log, going_on)) == [1, 2, 3]
        assert now(log, going_on).last == 3
        log.end(going_on.number, FINISHED)
    with log._file.using() as database:
        (left,) = database.execute("SELECT count(*) FROM frames WHERE run = 0").fetchone()
    assert left <= 1, "what keeps the place is forgotten in turn"


def test_many_runs_of_a_dead_process_are_ended_some_at_a_time(
    log: RunLog, other: RunLog, clock: Clock
) -> None:
    runs = [begun(other) for _ in range(run_peers._END_RUNS + 10)]
    ended = []
    for _ in range(6):
        clock.now += 1
        ended += log.tick()
    while again := log.tick():
        ended += again
    assert sorted(run.number for run in ended) == [run.number for run in runs]
