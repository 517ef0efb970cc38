"""The SQLite store of runs: what only a thread and a file can have, beside the contract's tests."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from sseflask.store import append_queue
from sseflask.store.api import StoreError
from sseflask.store.run_api import Run, RunLimits, RunStore
from sseflask.store.sqlite import thread as module
from sseflask.store.sqlite.run_database import RunDatabase
from sseflask.store.sqlite.run_store import SqliteRunStore
from tests.contract.run_stores import (
    DAY,
    ENDINGS,
    FINISHED,
    STOPPED,
    Listener,
    begun,
    fresh,
    numbered,
    put,
)
from tests.live.kit.waiting import until
from tests.unit.store.sqlite.run_databases import FINISHED as CLEAN_END
from tests.unit.store.sqlite.run_databases import end, opened

Process = tuple[RunStore, Listener]


def running(path: Path, seconds: float = DAY) -> Iterator[Process]:
    store, listener = SqliteRunStore(str(path), RunLimits(seconds), ENDINGS), Listener()
    store.follow(listener)
    yield store, listener
    store.close()


@pytest.fixture
def own(path: Path) -> Iterator[Process]:
    yield from running(path)


@pytest.fixture
def other(path: Path) -> Iterator[Process]:
    yield from running(path)


def test_others_are_woken_as_long_as_they_watch(
    own: Process, other: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No process has to look by itself, which takes a quarter of a second."""
    monkeypatch.setattr(module, "LOOK_SECONDS", 60.0)
    run, unseen = begun(own[0]), begun(own[0])
    # Until its writer knows it, what is there is given by the end of its look.
    other[0].attach(run.key)
    for number in range(1, 20):
        put(own[0], run, number, 1)
        other[1].wait_for_frame(run, number)
    put(own[0], unseen, 1, 1)
    put(own[0], run, 20, 0, FINISHED)
    other[1].wait_for_end(run)
    assert unseen.key not in other[1].seen


def test_a_run_whose_file_is_gone_is_lost(own: Process, path: Path) -> None:
    run = begun(own[0])
    path.unlink()
    own[1].wait(lambda: own[1].gone, "it was lost")
    assert own[1].gone == [(run.key, None)]
    assert own[0].attach(run.key) is None


def test_a_run_that_is_forgotten_while_it_is_followed_is_lost(own: Process, path: Path) -> None:
    store, listener = own
    assert isinstance(store, SqliteRunStore)
    with opened(path, seconds=0.0, clock=time.monotonic) as database:
        claimed = database.claim(fresh())
        assert isinstance(claimed, tuple)
        run: Run = claimed[0]
        gate = threading.Event()
        store.attach(run.key)
        store.submit(lambda _: gate.wait(30), lambda *_: None)
        end(database, run.key, CLEAN_END)
        until(database.trim, "it is forgotten")
        gate.set()
        listener.wait(lambda: listener.gone, "it was lost")
        assert listener.gone == [(run.key, None)]


def test_frames_that_can_not_be_stored_are_given_up_and_their_run_ends_later(
    own: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, listener = own
    assert isinstance(store, SqliteRunStore)
    monkeypatch.setattr(append_queue, "_PATIENCE", 0.0)
    run = begun(store)
    store.call(lambda database: read_only(database, True))
    put(store, run, 1, 2)
    listener.wait(lambda: listener.gone, "it was lost")
    ((key, error),) = listener.gone
    assert key == run.key
    assert isinstance(error, StoreError)
    assert listener.ends == []
    store.call(lambda database: read_only(database, False))
    assert listener.wait_for_end(run).outcome == ENDINGS.unavailable.outcome
    assert listener.seen == {}
    again = begun(store)
    put(store, again, 1, 1)
    listener.wait_for_frame(again, 1)
    assert listener.seen[again.key] == numbered(1, 1)


def test_an_error_that_nobody_waits_for_is_logged(
    own: Process, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Unless it is one of the store's own, which has been reported, and passes."""
    store = own[0]
    assert isinstance(store, SqliteRunStore)
    run = begun(store)
    for error, logged in (StoreError("locked"), False), (ZeroDivisionError(), True):
        monkeypatch.setattr(RunDatabase, "end", mock.Mock(side_effect=error))
        store.end_soon(run.key, STOPPED)
        assert store.find(run.id, "alice") == run, "what was called before is done"
        assert ("a call to the run store failed" in caplog.text) == logged


def read_only(database: RunDatabase, whether: bool) -> None:
    with database.using() as connection:
        connection.execute(f"PRAGMA query_only = {'on' if whether else 'off'}").fetchone()


def test_a_store_that_can_not_be_opened_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for store, _ in running(tmp_path / "file" / "runs.db"):
        with pytest.raises(StoreError, match="run store"):
            begun(store)
        store.leave()
        assert store.health() == "unavailable"
