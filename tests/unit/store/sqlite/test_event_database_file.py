"""A database of events in a file: what several processes share, and what can be wrong with it."""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from sseflask.store.api import Append, Entry, EventLimits, StoreError
from sseflask.store.sqlite import event_tables as sqlite_tables
from sseflask.store.sqlite import file as sqlite_file
from sseflask.store.sqlite.event_database import EventDatabase
from tests.clock import Clock
from tests.processes import go_on, line, process
from tests.unit.store.sqlite.databases import (
    HOUR,
    database_at,
    everything,
    missing,
    opened,
    patterns,
    put,
    read,
)
from tests.unit.store.sqlite.event_processes import append, fill, hold


def test_processes_that_append_at_full_speed_share_one_order(path: Path) -> None:
    groups, tags = 500, ["one", "two"]
    expected = sum(index % 5 + 1 for index in range(groups)) * len(tags)
    seen: list[Entry] = []
    with ExitStack() as stack:
        store = stack.enter_context(opened(path))
        children = [stack.enter_context(process(append, path, groups, tag)) for tag in tags]
        assert [line(child) for child in children] == ["ready", "ready"]
        for child in children:
            go_on(child)
        deadline = time.monotonic() + 60
        while len(seen) < expected and time.monotonic() < deadline:
            page = store.since(len(seen), 100)
            # Gapless at every moment: what has been seen once never gets a new number below it.
            assert [entry.number for entry in page] == list(
                range(len(seen) + 1, len(seen) + 1 + len(page))
            )
            seen += page
        assert len(seen) == expected
        for tag, child in zip(tags, children, strict=True):
            assert line(child) == store.epoch
            acknowledged = [int(line(child)) for _ in range(groups)]
            assert acknowledged == [
                entry.number
                for entry, after in zip(seen, [*seen[1:], None], strict=True)
                if entry.channel == tag
                and (
                    after is None
                    or entry.frame.split()[1:2] != after.frame.split()[1:2]
                    or after.channel != tag
                )
            ]
            assert child.wait(30) == 0
        for tag in tags:
            own = [entry.frame for entry in seen if entry.channel == tag]
            assert own == [
                b"%s %d %d/%d" % (tag.encode(), index, number, index % 5 + 1)
                for index in range(groups)
                for number in range(index % 5 + 1)
            ]


def test_processes_that_create_the_file_at_the_same_time_agree(path: Path) -> None:
    with ExitStack() as stack:
        children = [stack.enter_context(process(append, path, 5, f"t{n}")) for n in range(6)]
        assert {line(child) for child in children} == {"ready"}
        for child in children:
            go_on(child)
        assert len({line(child) for child in children}) == 1
        assert [child.wait(30) for child in children] == [0] * 6
    with opened(path) as store:
        assert [entry.number for entry in everything(store)] == list(range(1, 6 * 15 + 1))


def test_nothing_acknowledged_is_lost_when_a_process_is_killed(path: Path) -> None:
    before = 0
    for round_ in range(5):
        with process(append, path, 100_000, "t") as child:
            assert line(child) == "ready"
            go_on(child)
            epoch = line(child)
            for _ in range(20 + 17 * round_):
                acknowledged = int(line(child))
            child.kill()
            child.wait(30)
        with opened(path, keep=1_000_000) as store:
            assert store.epoch == epoch
            there = everything(store)
            assert [entry.number for entry in there] == list(range(1, store.newest() + 1))
            assert store.newest() >= acknowledged > before
            # The last group is there as a whole.
            number, amount = there[-1].frame.split()[2].split(b"/")
            assert int(number) + 1 == int(amount)
            assert put(store, "t", b"t 0 0/1").first == len(there) + 1
            before = store.newest()


def test_a_lock_of_another_process_delays_writing_and_not_reading(path: Path) -> None:
    with opened(path) as store:
        put(store, "a", b"1")
        with process(hold, path) as child:
            assert line(child) == "locked"
            begun = time.monotonic()
            assert len(everything(store)) == 1
            assert len(read(store, patterns("a"), 0, 10, 10)) == 1
            assert missing(store, patterns("a"), 0) == []
            assert store.trim() == 0
            assert time.monotonic() < begun + 0.8
            # How long it is held is what this is about.
            timer = threading.Timer(1.0, go_on, [child])
            timer.start()
            assert put(store, "a", b"2").first == 2
            assert time.monotonic() >= begun + 0.9
            timer.join()


def test_a_lock_held_for_too_long_is_an_error_that_passes(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "_BUSY_SECONDS", 0.1)
    with opened(path) as store:
        put(store, "a", b"1")
        with process(hold, path) as child:
            assert line(child) == "locked"
            with pytest.raises(StoreError, match=r"locked.*Another process"):
                put(store, "a", b"2", key="k")
            assert len(everything(store)) == 1
            go_on(child)
            assert child.wait(30) == 0
        assert put(store, "a", b"2", key="k").repeated is False
        assert [entry.number for entry in everything(store)] == [1, 2]


def test_a_full_disk_is_an_error_that_passes(path: Path) -> None:
    # A limit to the size of a file: works for every user, and SQLite sees a write that fails.
    with process(fill, path) as child:
        assert str(path) in line(child)
        stored = int(line(child))
        assert stored >= 4
        assert line(child) == "True"
        assert line(child) == "True"
        assert line(child) == ""
        assert child.wait(30) == 0


def test_a_database_that_may_not_grow_says_so(path: Path) -> None:
    with opened(path) as store:
        put(store, "a", b"1")
        with store.using() as database:
            database.execute("PRAGMA max_page_count = 1").fetchone()
        with pytest.raises(StoreError, match=r"full.*Make room"):
            put(store, "a", b"x" * 100_000)
        assert [entry.frame for entry in everything(store)] == [b"1"]


@pytest.mark.parametrize("place", ["file/log.db", "directory", "/proc/nowhere/log.db"])
def test_a_place_where_nothing_can_be_written(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "directory").mkdir()
    store = database_at(tmp_path / place)
    for _ in range(2):
        with pytest.raises(StoreError, match="can't be opened"):
            store.open()
        with pytest.raises(StoreError, match="not open"):
            store.newest()
        with pytest.raises(StoreError, match="not open"):
            store.append([Append("a", (b"1",))])
        assert not store.replaced()
    store.close()


def test_a_store_that_turns_read_only_can_be_read(path: Path) -> None:
    # SQLite's own switch: root, which tests may run as, may write to any file.
    with opened(path) as store:
        put(store, "a", b"1")
        with store.using() as database:
            database.execute("PRAGMA query_only = on").fetchone()
        with pytest.raises(StoreError, match=r"readonly.*read-only"):
            put(store, "a", b"2")
        assert [entry.frame for entry in everything(store)] == [b"1"]
        assert missing(store, patterns("**"), 0) == []
        with store.using() as database:
            database.execute("PRAGMA query_only = off").fetchone()
        assert put(store, "a", b"2").first == 2


def test_the_file_is_for_its_owner_alone(path: Path) -> None:
    with opened(path) as store:
        put(store, "a", b"1")
        modes = [path.with_name(path.name + end).stat().st_mode & 0o777 for end in ("", "-wal")]
        assert modes == [0o600, 0o600]


def test_a_deleted_file_is_noticed_and_made_again(path: Path) -> None:
    with opened(path) as store, opened(path) as other:
        put(store, "a", b"1")
        assert not store.replaced()
        path.unlink()
        assert store.replaced()
        old = store.epoch
        store.close()
        store.open()
        assert not store.replaced()
        assert store.epoch != old
        assert everything(store) == []
        put(store, "a", b"new")
        # The other has not noticed yet; it neither sees the new file nor harms it.
        assert other.replaced()
        assert other.epoch == old
        put(other, "a", b"2")
        other.close()
        other.open()
        assert other.epoch == store.epoch
        assert everything(other) == everything(store) == [Entry(1, "a", b"new")]


def test_a_file_replaced_by_another_store_is_noticed(path: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "other.db"
    with opened(elsewhere) as store:
        put(store, "b", b"2")
        epoch = store.epoch
    with opened(path) as store:
        put(store, "a", b"1")
        store.close()
        assert not store.replaced()
        store.open()
        elsewhere.replace(path)
        assert store.replaced()
        store.close()
        store.open()
        assert store.epoch == epoch
        assert [entry.channel for entry in everything(store)] == ["b"]


def test_a_deleted_directory_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "store.db"
    with opened(path) as store:
        put(store, "a", b"1")
        for file in path.parent.iterdir():
            file.unlink()
        path.parent.rmdir()
        assert store.replaced()
        store.close()
        store.open()
        assert put(store, "a", b"1").first == 1


@pytest.mark.parametrize(
    "content", [b"no database at all\n" * 500, b"SQLite format 3\0" + b"\xff" * 9000]
)
def test_a_file_that_is_no_database_is_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"can't be opened.*move it away"):
        database_at(path).open()
    assert path.read_bytes() == content


def test_a_damaged_file_is_an_error_with_what_to_do(path: Path) -> None:
    with opened(path) as store:
        store.append([Append(f"c.{number}", (b"x" * 500,) * 5) for number in range(50)])
    content = path.read_bytes()
    path.write_bytes(content[:8192] + b"\xa5" * (len(content) - 8192))
    store = database_at(path)
    store.open()
    with pytest.raises(StoreError, match=r"malformed.*damaged"):
        everything(store)
    store.close()


def test_a_database_of_something_else_is_left_alone(path: Path) -> None:
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE log (x)")
    database.commit()
    database.close()
    with pytest.raises(StoreError, match="another program"):
        database_at(path).open()


def test_a_new_file_whose_marks_are_in_its_write_ahead_log_can_be_used(path: Path) -> None:
    database = sqlite3.connect(path)
    database.execute("PRAGMA journal_mode = WAL")
    marks = sqlite_tables.FORMAT
    database.execute(f"PRAGMA application_id = {marks.application}")
    database.execute(f"PRAGMA user_version = {marks.version}")
    assert path.read_bytes()[60:72] == bytes(12), "they are not in the file"
    assert sqlite_file.other_format(str(path), marks) == ""
    database.close()
    assert path.read_bytes()[60:72] != bytes(12)
    assert sqlite_file.other_format(str(path), marks) == ""
    assert "newer" in sqlite_file.other_format(str(path), marks._replace(version=0))


@pytest.mark.parametrize(("which", "version"), [("a newer", 99), ("an older", 0)])
def test_a_store_of_another_version_is_left_alone(path: Path, which: str, version: int) -> None:
    with opened(path):
        pass
    database = sqlite3.connect(path)
    database.execute(f"PRAGMA user_version = {version}")
    database.close()
    with pytest.raises(
        StoreError, match=rf"made by {which} version of sseflask \(its format is {version}, "
    ):
        database_at(path).open()


def test_after_a_start_of_the_machine_the_epoch_is_new(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What the machine lost when it went down can't be seen, so a start is made up.
    with opened(path) as store:
        put(store, "a", b"1")
        before = store.epoch
    with opened(path) as store:
        assert store.epoch == before
    monkeypatch.setattr(sqlite_tables, "boot_id", lambda: "another")
    with opened(path) as store:
        after = store.epoch
        assert after != before
        assert everything(store) == [Entry(1, "a", b"1")]
        assert put(store, "a", b"2").first == 2
    with opened(path) as store:
        assert store.epoch == after


def test_young_events_are_spared_though_there_are_too_many(tmp_path: Path) -> None:
    clock = Clock()
    store = EventDatabase(str(tmp_path / "store"), EventLimits(10, HOUR, young_seconds=5.0), clock)
    store.open()
    for _ in range(30):
        put(store, "a", b"x")
    assert len(everything(store)) == 30
    clock.now += 4
    put(store, "a", b"x")
    assert len(everything(store)) == 31
    clock.now += 2
    put(store, "a", b"x")
    # The first thirty are old enough; ten are to be kept, young or not.
    assert [entry.number for entry in everything(store)] == list(range(23, 33))
    assert [gap.oldest for gap in missing(store, patterns("a"), 0)] == [23]
    store.close()
