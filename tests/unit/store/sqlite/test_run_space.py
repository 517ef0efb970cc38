"""A store of runs is bounded in bytes: what is deleted, what is refused, what has to end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sseflask.store.run_api import Run, StoreFull
from sseflask.store.sqlite import file as sqlite_file
from sseflask.store.sqlite.run_database import RunDatabase
from tests.clock import Clock
from tests.unit.store.sqlite.run_databases import (
    DAY,
    STOPPED,
    append_of,
    begun,
    end,
    everything,
    finish,
    fresh,
    now,
    opened,
    put,
    used_by,
)

MOST = 1_000_000
LARGE = 60_000


@pytest.fixture
def store(path: Path, clock: Clock) -> Iterator[RunDatabase]:
    with opened(path, clock=clock, most_bytes=MOST) as store:
        yield store


@pytest.fixture
def other(store: RunDatabase, path: Path, clock: Clock) -> Iterator[RunDatabase]:
    assert store.leases.token
    with opened(path, clock=clock, most_bytes=MOST) as other:
        yield other


def large(store: RunDatabase, run: Run | None = None, *, frames: int = 1) -> Run:
    run = run or begun(store)
    last = now(store, run).last
    store.append([append_of(run.key, last + 1, [b"x" * LARGE] * frames, before=last * LARGE)])
    return run


def make_room(store: RunDatabase) -> None:
    while store.space.make():
        pass


def has_to_end_some(store: RunDatabase) -> bool:
    return store.space.overfull


def there(store: RunDatabase, runs: list[Run]) -> list[int]:
    return [place for place, run in enumerate(runs) if store.find(run.id, "alice") is not None]


def test_those_that_ended_first_are_forgotten_first(
    store: RunDatabase, other: RunDatabase, path: Path, clock: Clock
) -> None:
    """Whichever process stores and whichever looks; free room is used again."""
    running = large(store)
    runs: list[Run] = []
    for _ in range(100):
        clock.now += 1
        runs.append(large(store))
        finish(store, runs[-1])
        if other.space.is_due or store.space.is_due:
            make_room(other)
            store.space.make()
        assert used_by(store) <= MOST
    kept = there(store, runs)
    assert kept == list(range(100 - len(kept), 100))
    assert len(kept) * LARGE > MOST / 2, "no more than is needed"
    assert all(len(everything(other, runs[place])) == 1 for place in kept)
    assert len(everything(other, running)) == 1
    store.close()
    other.close()
    assert path.stat().st_size <= MOST


def test_what_is_kept_for_its_own_time_is_forgotten_after_it(
    store: RunDatabase, clock: Clock
) -> None:
    """And last if there is no room; its frames are there while its viewers read them."""
    gone, short, long = (begun(store, fresh(str(keep), keep=keep)) for keep in (0, 60, 9 * DAY))
    common = begun(store)
    for run in (gone, short, long, common):
        large(store, run)
        finish(store, run)
    clock.now += 1
    assert store.trim() == 0
    assert there(store, [gone, short, long]) == [1, 2]
    assert len(everything(store, gone)) == 1
    assert begun(store, fresh("0"))
    clock.now += 60
    while store.trim():
        pass
    assert everything(store, gone) == everything(store, short) == []
    clock.now += DAY
    while store.trim():
        pass
    assert there(store, [long, common]) == [0]
    others = [large(store) for _ in range(3)]
    for run in others:
        finish(store, run)
    clock.now += 11
    assert store.extent().oldest == DAY + 72
    filling: list[Run] = []
    while there(store, others):
        filling.append(large(store))
        make_room(store)
    assert there(store, [long]) == [0]
    while there(store, [long]):
        large(store)
        make_room(store)
    assert not has_to_end_some(store)


def test_a_store_full_of_running_ones_begins_no_more_until_some_have_ended(
    store: RunDatabase, other: RunDatabase
) -> None:
    known = fresh("known")
    runs = [large(store, begun(store, known)), *(large(store) for _ in range(14))]
    make_room(store)
    assert not has_to_end_some(store), "they may end well"
    for claim in (fresh(), fresh("new")):
        with pytest.raises(StoreFull):
            store.claim(claim)
    assert store.claim(known) == (now(store, runs[0]), True), "nothing is begun for it"
    make_room(other)
    with pytest.raises(StoreFull):
        other.claim(fresh())
    for run in runs[:5]:
        finish(store, run)
    for each in (store, other):
        assert begun(each)


def test_what_is_over_the_bound_names_the_largest(store: RunDatabase, other: RunDatabase) -> None:
    small = [large(store) for _ in range(10)]
    largest = large(other, frames=8)
    small += [large(other) for _ in range(3)]
    make_room(store)
    assert has_to_end_some(store)
    assert store.space.largest() == largest.key
    end(store, largest.key, STOPPED)
    make_room(store)
    assert not has_to_end_some(store)
    assert store.find(largest.id, "alice") is None
    assert there(store, small) == list(range(13))
    assert begun(store)


def test_nothing_running_is_not_the_largest(store: RunDatabase) -> None:
    finish(store, begun(store))
    assert store.space.largest() is None


def test_many_small_runs_count(store: RunDatabase, clock: Clock) -> None:
    """Those without a frame, and frames of a byte."""
    for number in range(3000):
        clock.now += 0.001
        run = begun(store, fresh(str(number)))
        if not number % 100:
            store.append([append_of(run.key, 1, [b"x"] * 100)])
        finish(store, run)
        if store.space.is_due:
            make_room(store)
    assert used_by(store) <= MOST


def test_without_a_bound_nothing_is_forgotten(path: Path) -> None:
    with opened(path) as store:
        runs = [large(store) for _ in range(30)]
        for run in runs:
            finish(store, run)
        make_room(store)
        assert not store.space.is_due
        assert len(there(store, runs)) == 30


def test_the_write_ahead_log_is_emptied_where_sqlite_never_came_to_it(
    store: RunDatabase, other: RunDatabase, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "_WAL_BYTES", MOST // 2)
    wal = path.with_name(path.name + "-wal")
    run = large(store)
    with other.reading() as database:
        database.execute("SELECT count(*) FROM runs").fetchall()
        large(store, run, frames=10)  # that reader sees what was before
    assert wal.stat().st_size > MOST // 2
    store.space.make()
    assert wal.stat().st_size == 0
    put(store, run, 12, 1)
    assert len(everything(other, run)) == 12
