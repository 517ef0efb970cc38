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
    frames_of,
    fresh,
    is_stored,
    now,
    numbers,
    opened,
    outcome_of,
    put,
)
from tests.unit.store.sqlite.run_processes import claim, fill, write

# -- what is forgotten -----------------------------------------------------------------------------


def test_a_run_is_kept_for_its_time_after_its_end(path: Path, clock: Clock) -> None:
    with opened(path, seconds=100, clock=clock) as store:
        running, ended = begun(store), begun(store, fresh("k"))
        put(store, running, 1, 2)
        put(store, ended, 1, 2)
        clock.now += 1000
        finish(store, ended)
        clock.now += 100
        assert store.trim() == 0
        assert store.find(ended.id, "alice") == now(store, ended)
        clock.now += 0.5
        assert store.find(ended.id, "alice") is None, "not found though it is still there"
        assert numbers(everything(store, ended)) == [1, 2]
        assert store.trim() == 1
        assert store.trim() == 0
        assert everything(store, ended) == []
        assert store.follow([ended.key, running.key]) == [now(store, running)]
        assert store.find(running.id, "alice") == now(store, running)
        assert end(store, ended.key, STOPPED) is None
        assert store.leases.attach(ended.key) is None
        assert not is_stored(store, append_of(ended.key, 3, frames_of(3, 1)))


def test_no_number_is_given_twice(path: Path, clock: Clock) -> None:
    with opened(path, seconds=1, clock=clock) as store:
        last = begun(store)
        finish(store, last)
        clock.now += 2
        assert store.trim() == 1
        assert begun(store).key > last.key


def test_forgetting_is_bounded(path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_space, "_RUNS", 5)
    monkeypatch.setattr(run_space, "_FRAMES", 30)
    with opened(path, seconds=1, clock=clock) as store:
        for _ in range(7):
            finish(store, begun(store))
            clock.now += 0.001
        for _ in range(3):
            run = begun(store)
            put(store, run, 1, 20)
            finish(store, run)
            clock.now += 0.001
        clock.now += 10
        amounts = []
        while amount := store.trim():
            amounts.append(amount)
        assert amounts == [5, 4, 1]


@pytest.mark.parametrize("limit", ["_FRAMES", "_BYTES"])
def test_a_long_run_is_forgotten_at_once_and_its_frames_piece_by_piece(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(
        run_space, limit, 30 if limit == "_FRAMES" else 30 * len(frames_of(1, 1)[0])
    )
    with opened(path, seconds=1, clock=clock) as store:
        long, beside = begun(store), begun(store)
        for first in range(1, 101, 5):
            put(store, long, first, 5)
            put(store, beside, first, 5)
        finish(store, long)
        clock.now += 2
        pieces = 0
        left = [100]
        while store.trim():
            pieces += 1
            assert store.find(long.id, "alice") is None
            assert everything(store, long) == [], "no hole is ever read"
            assert numbers(everything(store, beside)) == list(range(1, 101))
            with store.using() as database:
                left += database.execute(
                    "SELECT count(*) FROM frames WHERE run = ?", (long.key,)
                ).fetchone()
        assert left[-1] == 0
        assert all(0 < before - after <= 31 for before, after in pairwise(left))
        assert pieces >= 4
        put(store, beside, 101, 5)
        assert numbers(everything(store, beside)) == list(range(1, 106))


def test_what_watched_a_forgotten_run_watches_nothing(path: Path, clock: Clock) -> None:
    with (
        opened(path, seconds=1, clock=clock) as store,
        opened(path, seconds=1, clock=clock) as other,
    ):
        run = begun(store)
        other.leases.attach(run.key)
        finish(store, run)
        clock.now += 2
        assert store.trim() == 1
        assert not store.leases.others_are_attached()


def test_after_a_start_of_the_machine_nobody_is_alive_and_runs_are_kept_on(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock.now = 1_000_000.0
    with opened(path, seconds=100, clock=clock) as store:
        running, ended = begun(store, fresh("k")), begun(store)
        inheritable, waits = (begun(store, fresh(successor=b"go on")) for _ in range(2))
        put(store, running, 1, 2)
        store.leases.pass_on()
        with store.writing() as database:
            database.execute("UPDATE runs SET writer = 'x' WHERE number = ?", (inheritable.key,))
        finish(store, ended)
    # The clock of the machine begins again: what it said before means nothing.
    monkeypatch.setattr(run_tables, "boot_id", lambda: "another")
    clock.now = 10.0
    with opened(path, seconds=100, clock=clock) as store:
        assert store.find(ended.id, "alice") is not None
        assert store.leases.tick() == []
        inherited = [run for run, _ in store.leases.inherit([]).inherited]
        assert sorted(inherited) == [inheritable, waits]
        clock.now += 1
        assert [run.key for run in store.leases.tick()] == [running.key]
        assert code_of(now(store, running)) == "interrupted"
        assert store.claim(fresh("k")) == (now(store, running), True)
        clock.now = 110.0
        assert store.find(ended.id, "alice") is not None
        clock.now = 110.5
        assert store.find(ended.id, "alice") is None
        assert store.trim() == 1
    with opened(path, seconds=100, clock=clock) as store:
        clock.now = 111.0
        assert store.find(running.id, "alice") is not None, "only once"
        clock.now = 112.0
        assert store.find(running.id, "alice") is None


def test_a_process_that_opens_it_again_goes_on_writing(path: Path, clock: Clock) -> None:
    with opened(path, clock=clock) as store:
        run, token = begun(store), store.leases.token
        store.close()
        store.open()
        assert store.leases.token == token
        assert put(store, run, 1, 1)
        store.close()
        store.close()


# -- what can be wrong with it ---------------------------------------------------------------------


def test_a_full_disk_is_an_error_that_passes(path: Path) -> None:
    # A limit to the size of a file: works for every user, and SQLite sees a write that fails.
    with process(fill, path) as child:
        assert str(path) in line(child)
        assert int(line(child)) >= 3
        assert [line(child) for _ in range(4)] == ["True", "True", "True", ""]
        assert child.wait(30) == 0


def test_a_database_that_may_not_grow_says_so(path: Path) -> None:
    with opened(path) as store:
        run = begun(store)
        with store.using() as database:
            database.execute("PRAGMA max_page_count = 1").fetchone()
        with pytest.raises(StoreError, match=r"full.*Make room"):
            store.append([append_of(run.key, 1, [b"x" * 100_000])])
        assert now(store, run).last == 0


def test_a_store_that_turns_read_only_can_be_read(path: Path) -> None:
    with opened(path) as store:
        run = begun(store)
        put(store, run, 1, 1)
        with store.using() as database:
            database.execute("PRAGMA query_only = on").fetchone()
        for write in (
            lambda: put(store, run, 2, 1),
            lambda: finish(store, run),
            lambda: store.claim(fresh()),
            lambda: store.claim(fresh("k")),
            lambda: end(store, run.key, STOPPED),
            lambda: store.leases.attach(run.key),
            store.leases.tick,
            store.leases.leave,
        ):
            with pytest.raises(StoreError, match=r"readonly.*read-only"):
                write()
        assert store.trim() == 0
        assert numbers(everything(store, run)) == [1]
        found = store.find(run.id, "alice")
        assert found == now(store, run)
        assert found.ended is None
        with store.using() as database:
            database.execute("PRAGMA query_only = off").fetchone()
        assert put(store, run, 2, 1)
        assert outcome_of(finish(store, run)).kind == "finished"


def locked(path: Path, store: RunDatabase, *appends: RunAppend) -> None:
    """Make an append fail because another process writes for too long, then let it go on."""
    with process(hold, path) as child:
        assert line(child) == "locked"
        with pytest.raises(StoreError, match=r"locked.*Another process"):
            store.append(appends)
        go_on(child)
        assert child.wait(30) == 0


def test_a_lock_held_for_too_long_is_an_error_that_passes(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "_BUSY_SECONDS", 0.1)
    with opened(path) as store:
        run = begun(store)
        append = append_of(run.key, 1, frames_of(1, 2), FINISHED)
        locked(path, store, append)
        assert now(store, run) == run
        _, (ended,) = store.append([append])
        assert ended.ended == 3
        assert numbers(everything(store, run)) == [1, 2]


def test_an_append_that_fails_half_way_leaves_nothing_behind(path: Path) -> None:
    """It is tried again completely: what had been stored already would be there twice."""
    with opened(path) as store:
        run = begun(store)
        frames = [*frames_of(1, 64), b"x" * 100_000]
        with store.using() as database:
            (pages,) = database.execute("PRAGMA page_count").fetchone()
            (most,) = database.execute("PRAGMA max_page_count").fetchone()
            database.execute(f"PRAGMA max_page_count = {pages + 20}").fetchone()
        with pytest.raises(StoreError, match="full"):
            store.append([append_of(run.key, 1, frames)])
        assert now(store, run).last == 0
        with store.using() as database:
            database.execute(f"PRAGMA max_page_count = {most}").fetchone()
        assert is_stored(store, append_of(run.key, 1, frames))
        assert everything(store, run) == list(enumerate(frames, 1))


def test_an_end_that_fails_leaves_the_frames_that_came_with_it_to_the_next_attempt(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StoreError("the disk is gone")

    with opened(path) as store:
        run = begun(store)
        append = append_of(run.key, 1, frames_of(1, 2), FINISHED)
        with monkeypatch.context() as broken:
            broken.setattr(run_tables, "end_run", fail)
            with pytest.raises(StoreError):
                store.append([append])
        assert everything(store, run) == []
        _, (ended,) = store.append([append])
        assert ended.notes == append.notes[-1]
        assert numbers(everything(store, run)) == [1, 2]


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
def test_a_store_of_another_version_is_left_alone(path: Path, which: str, version: int) -> None:
    with opened(path):
        pass
    database = sqlite3.connect(path)
    database.execute(f"PRAGMA user_version = {version}")
    database.close()
    with pytest.raises(
        StoreError, match=rf"made by {which} version of sseflask \(its format is {version}, "
    ):
        RunDatabase(str(path), RunLimits(1), INTERRUPTED).open()


def test_a_store_that_is_not_open_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = RunDatabase(str(tmp_path / "file" / "runs.db"), RunLimits(1), INTERRUPTED)
    with pytest.raises(StoreError, match="can't be opened"):
        store.open()
    with pytest.raises(StoreError, match="not open"):
        store.claim(fresh())
    with pytest.raises(StoreError, match="not open"):
        store.append([append_of(1, 1, [b"x"])])
    store.close()


def test_the_file_is_for_its_owner_alone(path: Path) -> None:
    with opened(path) as store:
        begun(store)
        assert {each.stat().st_mode & 0o777 for each in path.parent.glob(f"{path.name}*[lb]")} == {
            0o600
        }


def test_a_deleted_file_is_noticed_and_made_again(path: Path, clock: Clock) -> None:
    with opened(path, clock=clock) as store:
        run = begun(store)
        assert not store.replaced()
        path.unlink()
        assert store.replaced()
        store.close()
        store.open()
        assert store.find(run.id, "alice") is None
        assert not is_stored(store, append_of(run.key, 1, frames_of(1, 1)))
        assert put(store, begun(store), 1, 1)


def test_in_another_file_no_run_has_the_number_of_one_that_was_in_this(path: Path) -> None:
    """A client that reads or stops a run of a deleted file must not find another client's run."""
    with opened(path) as store, opened(path) as other:
        runs = [begun(store).key for _ in range(5)]
        path.unlink()
        for each in (other, store):
            each.close()
            each.open()
        for _ in range(10):
            put(other, begun(other, fresh(subject="bob", account="bob")), 1, 3)
        assert store.follow(runs) == []
        assert [store.frames(number, 0, 10) for number in runs] == [[]] * 5
        assert [end(store, key, STOPPED) for key in runs] == [None] * 5


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
    with opened(path) as store, process(write, path, 100_000) as child:
        number = int(line(child))
        go_on(child)
        while not store.frames(number, 20, 1):
            pass
        stopped = end(store, number, STOPPED)
        assert stopped is not None
        stored = int(line(child))
        assert stopped.ended == stored + 1
        (run,) = store.follow([number])
        assert run == stopped
        assert numbers(everything(store, run)) == list(range(1, stored + 1))
        assert child.wait(30) == 0


def test_what_a_killed_process_has_stored_is_there(path: Path, clock: Clock) -> None:
    with opened(path, clock=clock) as store, process(write, path, 100_000) as child:
        number = int(line(child))
        go_on(child)
        while not store.frames(number, 20, 1):
            pass
        child.kill()
        child.wait(30)
        (run,) = store.follow([number])
        assert run.last > 20
        assert run.ended is None
        assert numbers(everything(store, run)) == list(range(1, run.last + 1))
