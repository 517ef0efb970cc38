"""The position that is known without asking the store's thread: never an old one."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from sseflask.store.api import Append, Appended, EventLimits, StoreBusy
from sseflask.store.sqlite import private_files
from sseflask.store.sqlite.commit_mark import commit_mark, pages_to_copy
from sseflask.store.sqlite.event_database import EventDatabase
from sseflask.store.sqlite.event_store import SqliteEventStore
from tests.processes import go_on, line, process
from tests.unit.store.sqlite import event_processes as processes

LIMITS = EventLimits(1_000_000, 86_400)


@contextmanager
def opened(path: Path) -> Iterator[EventDatabase]:
    database = EventDatabase(str(path), LIMITS)
    database.open()
    try:
        yield database
    finally:
        database.close()


def put(database: EventDatabase, amount: int = 1) -> int:
    (result,) = database.append([Append("a", (b"x",) * amount)])
    assert isinstance(result, Appended)
    return result.last


def look(database: EventDatabase) -> int:
    """Let a database know where it is."""
    newest = database.newest()
    database.note_given(database.found)
    return newest


def known(database: EventDatabase) -> int | None:
    position = database.known_position()
    return None if position is None else position.number


def test_it_is_known_until_something_is_stored(path: Path) -> None:
    with opened(path) as one, opened(path) as other:
        assert known(one) is None  # nobody has looked yet
        assert one.newest() == 0
        assert known(one) is None  # and not before the listener has it
        one.note_given(one.found)
        for number in range(1, 50):
            assert known(one) == number - 1
            put(other if number % 3 else one)
            assert known(one) is None
            assert look(one) == number
        assert one.known_position() == (one.epoch, 49)


def test_what_another_process_has_stored_is_seen_at_once(path: Path) -> None:
    with opened(path) as own, process(processes.append, path, 200, "t") as child:
        assert line(child) == "ready"
        go_on(child)
        assert line(child) == own.epoch
        while last := line(child):  # the child says it after the commit
            position = known(own)
            assert position is None or position >= int(last)
            look(own)
        assert child.wait(30) == 0
        assert known(own) == look(own) == 600


def test_what_a_killed_process_has_stored_is_seen(path: Path) -> None:
    with opened(path) as own:
        look(own)
        with process(processes.append, path, 100_000, "t") as child:
            assert line(child) == "ready"
            go_on(child)
            line(child)
            for _ in range(20):
                last = int(line(child))
            child.kill()
            child.wait()
        position = known(own)
        assert position is None or position >= last
        newest = look(own)
        assert newest >= last
        assert known(own) == newest


def test_what_is_not_committed_is_not_told(path: Path) -> None:
    with opened(path) as own, closing(sqlite3.connect(path, isolation_level=None)) as other:
        look(own)
        other.execute("BEGIN IMMEDIATE")
        other.execute("UPDATE log SET newest = 7")
        assert known(own) == 0
        other.execute("ROLLBACK")
        assert known(own) == 0
        other.execute("BEGIN IMMEDIATE")
        other.execute("UPDATE log SET newest = 7")
        other.execute("COMMIT")
        assert known(own) is None
        assert look(own) == 7


def test_a_log_that_begins_anew_is_another_one(path: Path) -> None:
    with opened(path) as own, closing(sqlite3.connect(path, isolation_level=None)) as other:
        put(own)
        marks = set()
        for number in range(2, 30):
            assert look(own) == number - 1
            marks.add(own.commit_mark())
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            put(own)
            assert known(own) is None
        assert len(marks) == 28


def test_nothing_is_told_of_what_is_closed_or_in_memory(path: Path) -> None:
    with opened(path) as own:
        look(own)
        assert known(own) == 0
    assert known(own) is None
    own.open()
    assert known(own) is None or known(own) == 0
    own.close()
    memory = EventDatabase(":memory:", LIMITS)
    memory.open()
    look(memory)
    assert known(memory) is None
    memory.close()


def test_other_bytes_than_those_of_an_index_tell_nothing(tmp_path: Path) -> None:
    file = tmp_path / "file"
    for content in (b"", b"x" * 48, (3_007_000).to_bytes(4, "little"), b"\0" * 100):
        file.write_bytes(content)
        with file.open("rb") as other:
            descriptor = other.fileno()
            assert commit_mark(descriptor) == b""
    assert commit_mark(descriptor) == b""  # closed
    assert commit_mark(None) == b""


def index_is(path: Path) -> str:
    """Whether another process finds SQLite's lock on the index of a database."""
    with process(processes.try_index, path) as child:
        return line(child)


def test_the_locks_of_sqlite_outlive_each_who_closes_but_the_last(path: Path) -> None:
    descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208  # numbers, no files
    with opened(path) as one:
        with opened(path) as other:
            look(other)
            look(one)
            assert one.commit_mark() == other.commit_mark() != b""
        assert index_is(path) == "held"
        assert known(one) == 0
        # The test would see it: this closes a descriptor of the index.
        Path(f"{path}-shm").read_bytes()
        assert index_is(path) == "free"
    assert len(os.listdir("/proc/self/fd")) == descriptors  # noqa: PTH208
    assert not private_files._indexes


class Listener:
    """Takes no notice."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


def test_a_position_that_is_known_waits_for_no_thread(path: Path) -> None:
    store, gate = SqliteEventStore(str(path), LIMITS), threading.Event()
    store.follow(Listener())
    store.append(Append("a", (b"1", b"2")))
    here = store.position()
    store.submit(lambda _: gate.wait(30), lambda *_: None)
    try:
        assert store.position(0.05) == here == (here.epoch, 2)
        with opened(path) as other:
            put(other)
        with pytest.raises(StoreBusy):
            store.position(0.05)
    finally:
        gate.set()
    assert store.position() == (here.epoch, 3)
    store.close()
    assert store.join(30)


def test_a_position_is_known_once_the_listener_has_begun_with_it(path: Path) -> None:
    """A subscriber that came between the two would have an epoch of its own."""
    told: list[str] = []

    class Follower(Listener):
        def started(self, epoch: str, _newest: int) -> None:
            told.append(epoch)

    store = SqliteEventStore(str(path), LIMITS)
    waiting: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
    # An event loop that has something else to do.
    store._notify = lambda function, *arguments: waiting.append((function, arguments))
    store.follow(Follower())
    database = store.call(lambda database: database)
    assert waiting
    while waiting and not told:
        assert database.known_position() is None
        function, arguments = waiting.pop(0)
        function(*arguments)
    for function, arguments in waiting:
        function(*arguments)
    position = database.known_position()
    assert position is not None
    assert [position.epoch] == told
    store.close()
    assert store.join(30)


def test_the_pages_that_are_not_copied_are_counted_for_all_processes(path: Path) -> None:
    with opened(path) as one, opened(path) as other:
        for number in range(20):
            put(one if number % 2 else other)
        left = one.pages_to_copy()
        assert left
        assert other.pages_to_copy() == left
        with other.using() as database:
            pages, copied = database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1:]
        assert left <= pages == copied
        assert one.pages_to_copy() == 0
        with other.reading() as database:
            database.execute("SELECT * FROM events").fetchone()
            put(one)
            first = one.pages_to_copy()
            assert first
            one.copy_wal()
            put(one)
            one.copy_wal()  # that reader sees what was before
            assert one.pages_to_copy()
        one.copy_wal()
        assert one.pages_to_copy() == 0
    assert one.pages_to_copy() is None


def test_what_is_no_index_counts_nothing(tmp_path: Path) -> None:
    (tmp_path / "index").write_bytes(b"\0" * 200)
    with (tmp_path / "index").open("rb") as index:
        assert pages_to_copy(index.fileno()) is None
    assert pages_to_copy(None) is None
    (tmp_path / "short").write_bytes(b"\0")
    with (tmp_path / "short").open("rb") as index:
        assert pages_to_copy(index.fileno()) is None
