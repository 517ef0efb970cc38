"""The file of runs: what is forgotten and when, what can go wrong with it, many processes."""

from __future__ import annotations

import sqlite3
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest

from sseflask.store.api import StoreError
from sseflask.store.run_api import RunAppend, RunLimits
from sseflask.store.sqlite import file as sqlite_file
from sseflask.store.sqlite import run_space, run_tables
from sseflask.store.sqlite.run_database import RunDatabase
from tests.clock import Clock
from tests.processes import go_on, line, process
from tests.unit.store.sqlite.event_processes import hold
from tests.unit.store.sqlite.run_databases import (
    FINISHED,
    INTERRUPTED,
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
from tests.unit.store.sqlite.run_processes import claim, fill, write

# -- what is forgotten -----------------------------------------------------------------------------


def test_a_run_is_kept_for_its_time_after_its_end(path: Path, clock: Clock) -> None:
    with opened(path, seconds=100, clock=clock) as log:
        running, ended = begun(log), begun(log, fresh("k"))
        put(log, running, 1, 2)
        put(log, ended, 1, 2)
        clock.now += 1000
        finish(log, ended)
        clock.now += 100
        assert log.trim() == 0
        assert log.find(ended.id, "alice") == now(log, ended)
        clock.now += 0.5
        assert log.find(ended.id, "alice") is None, "not found though it is still there"
        assert numbers(everything(log, ended)) == [1, 2]
        assert log.trim() == 1
        assert log.trim() == 0
        assert everything(log, ended) == []
        assert log.follow([ended.key, running.key]) == [now(log, running)]
        assert log.find(running.id, "alice") == now(log, running)
        assert end(log, ended.key, STOPPED) is None
        assert log.leases.attach(ended.key) is None
        assert not is_stored(log, append_of(ended.key, 3, told(3, 1)))


def test_no_number_is_given_twice(path: Path, clock: Clock) -> None:
    with opened(path, seconds=1, clock=clock) as log:
        last = begun(log)
        finish(log, last)
        clock.now += 2
        assert log.trim() == 1
        assert begun(log).key > last.key


def test_forgetting_is_bounded(path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_space, "_RUNS", 5)
    monkeypatch.setattr(run_space, "_FRAMES", 30)
    with opened(path, seconds=1, clock=clock) as log:
        for _ in range(7):
            finish(log, begun(log))
            clock.now += 0.001
        for _ in range(3):
            run = begun(log)
            put(log, run, 1, 20)
            finish(log, run)
            clock.now += 0.001
        clock.now += 10
        amounts = []
        while amount := log.trim():
            amounts.append(amount)
        assert amounts == [5, 4, 1]


@pytest.mark.parametrize("limit", ["_FRAMES", "_BYTES"])
def test_a_long_run_is_forgotten_at_once_and_its_frames_piece_by_piece(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(run_space, limit, 30 if limit == "_FRAMES" else 30 * len(told(1, 1)[0]))
    with opened(path, seconds=1, clock=clock) as log:
        long, beside = begun(log), begun(log)
        for first in range(1, 101, 5):
            put(log, long, first, 5)
            put(log, beside, first, 5)
        finish(log, long)
        clock.now += 2
        pieces = 0
        left = [100]
        while log.trim():
            pieces += 1
            assert log.find(long.id, "alice") is None
            assert everything(log, long) == [], "no hole is ever read"
            assert numbers(everything(log, beside)) == list(range(1, 101))
            with log.using() as database:
                left += database.execute(
                    "SELECT count(*) FROM frames WHERE run = ?", (long.key,)
                ).fetchone()
        assert left[-1] == 0
        assert all(0 < before - after <= 31 for before, after in pairwise(left))
        assert pieces >= 4
        put(log, beside, 101, 5)
        assert numbers(everything(log, beside)) == list(range(1, 106))


def test_what_watched_a_forgotten_run_watches_nothing(path: Path, clock: Clock) -> None:
    with (
        opened(path, seconds=1, clock=clock) as log,
        opened(path, seconds=1, clock=clock) as other,
    ):
        run = begun(log)
        other.leases.attach(run.key)
        finish(log, run)
        clock.now += 2
        assert log.trim() == 1
        assert not log.leases.others_are_attached()


def test_after_a_start_of_the_machine_nobody_is_alive_and_runs_are_kept_on(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock.now = 1_000_000.0
    with opened(path, seconds=100, clock=clock) as log:
        running, ended = begun(log, fresh("k")), begun(log)
        put(log, running, 1, 2)
        finish(log, ended)
    # The clock of the machine begins again: what it said before means nothing.
    monkeypatch.setattr(run_tables, "boot_id", lambda: "another")
    clock.now = 10.0
    with opened(path, seconds=100, clock=clock) as log:
        assert log.find(ended.id, "alice") is not None
        assert log.leases.tick() == []
        clock.now += 1
        assert [run.key for run in log.leases.tick()] == [running.key]
        assert code_of(now(log, running)) == "interrupted"
        assert log.claim(fresh("k")) == (now(log, running), True)
        clock.now = 110.0
        assert log.find(ended.id, "alice") is not None
        clock.now = 110.5
        assert log.find(ended.id, "alice") is None
        assert log.trim() == 1
    with opened(path, seconds=100, clock=clock) as log:
        clock.now = 111.0
        assert log.find(running.id, "alice") is not None, "only once"
        clock.now = 112.0
        assert log.find(running.id, "alice") is None


def test_a_process_that_opens_it_again_goes_on_writing(path: Path, clock: Clock) -> None:
    with opened(path, clock=clock) as log:
        run, token = begun(log), log.leases.token
        log.close()
        log.open()
        assert log.leases.token == token
        assert put(log, run, 1, 1)
        log.close()
        log.close()


# -- what can be wrong with it ---------------------------------------------------------------------


def test_a_full_disk_is_an_error_that_passes(path: Path) -> None:
    # A limit to the size of a file: works for every user, and SQLite sees a write that fails.
    with process(fill, path) as child:
        assert str(path) in line(child)
        assert int(line(child)) >= 3
        assert [line(child) for _ in range(4)] == ["True", "True", "True", ""]
        assert child.wait(30) == 0


def test_a_database_that_may_not_grow_says_so(path: Path) -> None:
    with opened(path) as log:
        run = begun(log)
        with log.using() as database:
            database.execute("PRAGMA max_page_count = 1").fetchone()
        with pytest.raises(StoreError, match=r"full.*Make room"):
            log.append([append_of(run.key, 1, [b"x" * 100_000])])
        assert now(log, run).last == 0


def test_a_log_that_turns_read_only_can_be_read(path: Path) -> None:
    with opened(path) as log:
        run = begun(log)
        put(log, run, 1, 1)
        with log.using() as database:
            database.execute("PRAGMA query_only = on").fetchone()
        for write in (
            lambda: put(log, run, 2, 1),
            lambda: finish(log, run),
            lambda: log.claim(fresh()),
            lambda: log.claim(fresh("k")),
            lambda: end(log, run.key, STOPPED),
            lambda: log.leases.attach(run.key),
            log.leases.tick,
            log.leases.leave,
        ):
            with pytest.raises(StoreError, match=r"readonly.*read-only"):
                write()
        assert log.trim() == 0
        assert numbers(everything(log, run)) == [1]
        found = log.find(run.id, "alice")
        assert found == now(log, run)
        assert found.ended is None
        with log.using() as database:
            database.execute("PRAGMA query_only = off").fetchone()
        assert put(log, run, 2, 1)
        assert outcome_of(finish(log, run)).kind == "finished"


def locked(path: Path, log: RunDatabase, *appends: RunAppend) -> None:
    """Have an append fail as another process writes for too long, and let that go on."""
    with process(hold, path) as child:
        assert line(child) == "locked"
        with pytest.raises(StoreError, match=r"locked.*Another process"):
            log.append(appends)
        go_on(child)
        assert child.wait(30) == 0


def test_a_lock_held_for_too_long_is_an_error_that_passes(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "_BUSY_SECONDS", 0.1)
    with opened(path) as log:
        run = begun(log)
        append = append_of(run.key, 1, told(1, 2), FINISHED)
        locked(path, log, append)
        assert now(log, run) == run
        _, (ended,) = log.append([append])
        assert ended.ended == 3
        assert numbers(everything(log, run)) == [1, 2]


def test_an_append_that_fails_half_way_leaves_nothing_behind(path: Path) -> None:
    """It is tried again as a whole, and what was stored already would be there twice."""
    with opened(path) as log:
        run = begun(log)
        frames = [*told(1, 64), b"x" * 100_000]
        with log.using() as database:
            (pages,) = database.execute("PRAGMA page_count").fetchone()
            (most,) = database.execute("PRAGMA max_page_count").fetchone()
            database.execute(f"PRAGMA max_page_count = {pages + 20}").fetchone()
        with pytest.raises(StoreError, match="full"):
            log.append([append_of(run.key, 1, frames)])
        assert now(log, run).last == 0
        with log.using() as database:
            database.execute(f"PRAGMA max_page_count = {most}").fetchone()
        assert is_stored(log, append_of(run.key, 1, frames))
        assert everything(log, run) == list(enumerate(frames, 1))


def test_an_end_that_fails_leaves_the_frames_that_came_with_it_to_the_next_attempt(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StoreError("the disk is gone")

    with opened(path) as log:
        run = begun(log)
        append = append_of(run.key, 1, told(1, 2), FINISHED)
        with monkeypatch.context() as broken:
            broken.setattr(run_tables, "end_run", fail)
            with pytest.raises(StoreError):
                log.append([append])
        assert everything(log, run) == []
        _, (ended,) = log.append([append])
        assert ended.notes == append.notes[-1]
        assert numbers(everything(log, run)) == [1, 2]


@pytest.mark.parametrize("content", [b"no database at all\n" * 500, b"SQLite format 3\0\xff"])
def test_a_file_that_is_no_database_is_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(StoreError, match="can't be opened"):
        RunDatabase(str(path), RunLimits(1), INTERRUPTED).open()
    assert path.read_bytes() == content


def test_the_database_of_another_program_is_left_alone(path: Path) -> None:
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE runs (x)")
    database.commit()
    database.close()
    with pytest.raises(StoreError, match="another program"):
        RunDatabase(str(path), RunLimits(1), INTERRUPTED).open()


@pytest.mark.parametrize(("which", "version"), [("a newer", 99), ("an older", 1)])
def test_a_log_of_another_version_is_left_alone(path: Path, which: str, version: int) -> None:
    with opened(path):
        pass
    database = sqlite3.connect(path)
    database.execute(f"PRAGMA user_version = {version}")
    database.close()
    with pytest.raises(
        StoreError, match=rf"made by {which} version of sseflask \(its format is {version}, "
    ):
        RunDatabase(str(path), RunLimits(1), INTERRUPTED).open()


def test_a_log_that_is_not_open_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    log = RunDatabase(str(tmp_path / "file" / "runs.db"), RunLimits(1), INTERRUPTED)
    with pytest.raises(StoreError, match="can't be opened"):
        log.open()
    with pytest.raises(StoreError, match="not open"):
        log.claim(fresh())
    with pytest.raises(StoreError, match="not open"):
        log.append([append_of(1, 1, [b"x"])])
    log.close()


def test_the_file_is_for_its_owner_alone(path: Path) -> None:
    with opened(path) as log:
        begun(log)
        assert {each.stat().st_mode & 0o777 for each in path.parent.glob(f"{path.name}*[lb]")} == {
            0o600
        }


def test_a_deleted_file_is_noticed_and_made_again(path: Path, clock: Clock) -> None:
    with opened(path, clock=clock) as log:
        run = begun(log)
        assert not log.replaced()
        path.unlink()
        assert log.replaced()
        log.close()
        log.open()
        assert log.find(run.id, "alice") is None
        assert not is_stored(log, append_of(run.key, 1, told(1, 1)))
        assert put(log, begun(log), 1, 1)


def test_in_another_file_no_run_has_the_number_of_one_that_was_in_this(path: Path) -> None:
    """Who still reads or stops a run of a file that is gone must not find somebody else's."""
    with opened(path) as log, opened(path) as other:
        runs = [begun(log).key for _ in range(5)]
        path.unlink()
        for each in (other, log):
            each.close()
            each.open()
        for _ in range(10):
            put(other, begun(other, fresh(subject="bob", account="bob")), 1, 3)
        assert log.follow(runs) == []
        assert [log.frames(number, 0, 10) for number in runs] == [[]] * 5
        assert [end(log, key, STOPPED) for key in runs] == [None] * 5


# -- many processes --------------------------------------------------------------------------------


def test_processes_that_claim_the_same_keys_begin_each_run_once(path: Path) -> None:
    keys, contents = 40, ["same", "same", "same", "other"]
    with ExitStack() as stack:
        children = [stack.enter_context(process(claim, path, keys, text)) for text in contents]
        assert [line(child) for child in children] == ["ready"] * len(children)
        for child in children:
            go_on(child)
        became = [[line(child) for _ in range(keys)] for child in children]
        for child in children:
            go_on(child)
        assert [child.wait(30) for child in children] == [0] * len(children)
    for of_key in zip(*became, strict=True):
        (begun_by,) = [place for place, text in enumerate(of_key) if text.startswith("fresh")]
        number = of_key[begun_by].split()[1]
        for place, text in enumerate(of_key):
            if place != begun_by:
                same = contents[place] == contents[begun_by]
                assert text == (f"found {number}" if same else "reused")


def test_a_run_ended_by_another_process_while_it_is_written_at_full_speed(path: Path) -> None:
    with opened(path) as log, process(write, path, 100_000) as child:
        number = int(line(child))
        go_on(child)
        while not log.frames(number, 20, 1):
            pass
        stopped = end(log, number, STOPPED)
        assert stopped is not None
        stored = int(line(child))
        assert stopped.ended == stored + 1
        (run,) = log.follow([number])
        assert run == stopped
        assert numbers(everything(log, run)) == list(range(1, stored + 1))
        assert child.wait(30) == 0


def test_what_a_killed_process_has_stored_is_there(path: Path, clock: Clock) -> None:
    with opened(path, clock=clock) as log, process(write, path, 100_000) as child:
        number = int(line(child))
        go_on(child)
        while not log.frames(number, 20, 1):
            pass
        child.kill()
        child.wait(30)
        (run,) = log.follow([number])
        assert run.last > 20
        assert run.ended is None
        assert numbers(everything(log, run)) == list(range(1, run.last + 1))
