"""A log of runs that is bounded in bytes: what is forgotten, who is refused, what has to end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sseflask.store.run_api import Run, StoreFull
from sseflask.store.sqlite import file as sqlite_file
from sseflask.store.sqlite.run_database import RunDatabase
from tests.clock import Clock
from tests.unit.store.sqlite.run_databases import (
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
def log(path: Path, clock: Clock) -> Iterator[RunDatabase]:
    with opened(path, clock=clock, most_bytes=MOST) as log:
        yield log


@pytest.fixture
def other(log: RunDatabase, path: Path, clock: Clock) -> Iterator[RunDatabase]:
    assert log.leases.token
    with opened(path, clock=clock, most_bytes=MOST) as other:
        yield other


def large(log: RunDatabase, run: Run | None = None, *, frames: int = 1) -> Run:
    run = run or begun(log)
    last = now(log, run).last
    log.append([append_of(run.key, last + 1, [b"x" * LARGE] * frames, before=last * LARGE)])
    return run


def make_room(log: RunDatabase) -> None:
    while log.space.make():
        pass


def has_to_end_some(log: RunDatabase) -> bool:
    return log.space.overfull


def there(log: RunDatabase, runs: list[Run]) -> list[int]:
    return [place for place, run in enumerate(runs) if log.find(run.id, "alice") is not None]


def test_those_that_ended_first_are_forgotten_first(
    log: RunDatabase, other: RunDatabase, path: Path, clock: Clock
) -> None:
    """Whoever stores and whoever looks; and what is free is used again."""
    running = large(log)
    runs: list[Run] = []
    for _ in range(100):
        clock.now += 1
        runs.append(large(log))
        finish(log, runs[-1])
        if other.space.is_due or log.space.is_due:
            make_room(other)
            log.space.make()
        assert used_by(log) <= MOST
    kept = there(log, runs)
    assert kept == list(range(100 - len(kept), 100))
    assert len(kept) * LARGE > MOST / 2, "no more than is needed"
    assert all(len(everything(other, runs[place])) == 1 for place in kept)
    assert len(everything(other, running)) == 1
    log.close()
    other.close()
    assert path.stat().st_size <= MOST


def test_a_log_full_of_running_ones_begins_no_more_until_some_have_ended(
    log: RunDatabase, other: RunDatabase
) -> None:
    known = fresh("known")
    runs = [large(log, begun(log, known)), *(large(log) for _ in range(14))]
    make_room(log)
    assert not has_to_end_some(log), "they may end well"
    for claim in (fresh(), fresh("new")):
        with pytest.raises(StoreFull):
            log.claim(claim)
    assert log.claim(known) == (now(log, runs[0]), True), "nothing is begun for it"
    make_room(other)
    with pytest.raises(StoreFull):
        other.claim(fresh())
    for run in runs[:5]:
        finish(log, run)
    for each in (log, other):
        assert begun(each)


def test_what_is_over_the_bound_names_the_largest(log: RunDatabase, other: RunDatabase) -> None:
    small = [large(log) for _ in range(10)]
    largest = large(other, frames=8)
    small += [large(other) for _ in range(3)]
    make_room(log)
    assert has_to_end_some(log)
    assert log.space.largest() == largest.key
    end(log, largest.key, STOPPED)
    make_room(log)
    assert not has_to_end_some(log)
    assert log.find(largest.id, "alice") is None
    assert there(log, small) == list(range(13))
    assert begun(log)


def test_nothing_running_is_not_the_largest(log: RunDatabase) -> None:
    finish(log, begun(log))
    assert log.space.largest() is None


def test_many_small_runs_count(log: RunDatabase, clock: Clock) -> None:
    """Those without a frame, and frames of a byte."""
    for number in range(3000):
        clock.now += 0.001
        run = begun(log, fresh(str(number)))
        if not number % 100:
            log.append([append_of(run.key, 1, [b"x"] * 100)])
        finish(log, run)
        if log.space.is_due:
            make_room(log)
    assert used_by(log) <= MOST


def test_without_a_bound_nothing_is_forgotten(path: Path) -> None:
    with opened(path) as log:
        runs = [large(log) for _ in range(30)]
        for run in runs:
            finish(log, run)
        make_room(log)
        assert not log.space.is_due
        assert len(there(log, runs)) == 30


def test_the_write_ahead_log_is_emptied_where_sqlite_never_came_to_it(
    log: RunDatabase, other: RunDatabase, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "_WAL_BYTES", MOST // 2)
    wal = path.with_name(path.name + "-wal")
    run = large(log)
    with other.reading() as database:
        database.execute("SELECT count(*) FROM runs").fetchall()
        large(log, run, frames=10)  # that reader sees what was before
    assert wal.stat().st_size > MOST // 2
    log.space.make()
    assert wal.stat().st_size == 0
    put(log, run, 12, 1)
    assert len(everything(other, run)) == 12
