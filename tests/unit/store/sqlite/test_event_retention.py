"""How large the store's file gets: it is bounded in bytes, whatever is published."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from sseflask.store.api import Append, Entry, EventLimits
from sseflask.store.sqlite.event_database import EventDatabase
from tests.unit.store.sqlite.databases import missing, patterns

MIB = 1 << 20
MOST = 2 * MIB


def opened(path: Path, most: float = MOST) -> EventDatabase:
    made = EventDatabase(str(path), EventLimits(10**6, 86_400, most, young_seconds=3600.0))
    made.open()
    return made


def numbers(made: EventDatabase) -> list[int]:
    found = list[int]()
    while page := made.since(found[-1] if found else 0, 1000):
        found += (entry.number for entry in page)
    return found


def size(path: Path) -> int:
    return path.stat().st_size


def wal(path: Path) -> int:
    return path.with_name(f"{path.name}-wal").stat().st_size


def shapes(kind: str) -> Iterator[Append]:
    """What a client may publish, without an end."""
    for number in itertools.count():
        if kind == "small":
            yield Append("a", (b"x",) * 100)
        elif kind == "many channels":
            yield Append(f"channel.{number}", (b"x" * 50,))
        elif kind == "keys":
            yield Append(f"c.{number % 5}", (b"x" * 10,), f"key {number}", b"d" * 32)
        elif kind == "large":
            yield Append(f"c.{number % 5}", (b"x" * 100_000,))
        else:
            yield Append(f"c.{number % 5}", (b"x" * (number * 7919 % 30_000),) * (number % 4 + 1))


@pytest.mark.parametrize("kind", ["small", "many channels", "keys", "large", "mixed"])
def test_two_processes_that_write_more_than_it_may_have_keep_it_within_its_bound(
    tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "store.db"
    with ExitStack() as stack:
        logs = [opened(path), opened(path)]
        for each in logs:
            stack.callback(each.close)
        written, newest, largest, longest = 0, 0, 0, 0
        appends = shapes(kind)
        for turn in itertools.count():
            group = list(itertools.islice(appends, 5))
            (*_, last) = logs[turn % 2].append(group)
            newest = last.last  # type: ignore[union-attr]  # no key comes twice
            frames = [frame for append in group for frame in append.frames]
            written += sum(len(frame) + (30 if kind == "small" else 100) for frame in frames)
            if turn % 10 == 0:
                logs[0].copy_wal()  # as a store's thread does
            largest, longest = max(largest, size(path)), max(longest, wal(path))
            if written > 3 * MOST:
                break
        assert MOST / 2 < largest <= MOST
        # SQLite copies it into the file after 3,000 pages, and after each transaction beyond that.
        assert longest < 16 * MIB
        # The last events are there without a hole, and in what has been lost nothing is unsaid.
        there = numbers(logs[0])
        assert there == list(range(there[0], newest + 1))
        assert there[0] > 1
        assert missing(logs[1], patterns("**"), there[0] - 2) != []
        assert missing(logs[1], patterns("**"), there[0] - 1) == []
        assert len(logs[0].append([Append("last", (b"y",))])) == 1
        assert logs[1].since(newest, 9)[-1] == Entry(newest + 1, "last", b"y")


def test_what_is_too_much_at_the_start_is_forgotten_bit_by_bit(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    before = opened(path, most=float("inf"))
    for _ in range(60):
        before.append([Append("a", (b"x" * 1000,) * 100)])
    before.close()
    after = opened(path)
    assert len(numbers(after)) == 6000
    forgotten = []
    while amount := after.trim():
        forgotten.append(amount)
    assert max(forgotten) <= 1000
    left = numbers(after)
    assert MOST / 2 < len(left) * 1000 <= MOST
    assert sum(forgotten) == 6000 - len(left)
    # The file does not shrink, but what is free is used before it grows.
    large = size(path)
    for _ in range(60):
        after.append([Append("a", (b"x" * 1000,) * 100)])
    assert size(path) == large
    after.close()


def test_channels_that_are_written_to_while_they_are_forgotten_are_counted_right(
    tmp_path: Path,
) -> None:
    own = opened(tmp_path / "store.db", most=MIB)
    for number in range(3000):
        own.append([Append(f"c.{number % 3}", (b"x" * 900,)), Append(f"n.{number}", (b"x",))])
    with own.reading() as database:
        rows = database.execute(
            "SELECT name, kept, (SELECT count(*) FROM events WHERE channel = id) FROM channels"
        ).fetchall()
        orphans = database.execute(
            "SELECT count(*) FROM events WHERE channel NOT IN (SELECT id FROM channels)"
        ).fetchone()
    assert [(name, kept) for name, kept, _ in rows] == [(name, held) for name, _, held in rows]
    assert orphans == (0,)
    own.close()


def test_the_write_ahead_log_has_a_bound_though_nobody_finds_time_to_copy_it(
    tmp_path: Path,
) -> None:
    path = tmp_path / "store.db"
    with ExitStack() as stack:
        logs = [opened(path, most=1 << 40), opened(path, most=1 << 40)]
        for each in logs:
            stack.callback(each.close)
        for turn in range(80):
            logs[turn % 2].append([Append("a", (b"x" * 10_000,) * 50)])
            assert wal(path) < 16 * MIB
        assert size(path) > 16 * MIB


def test_a_long_write_ahead_log_is_emptied(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    own, reader = opened(path, most=1 << 40), opened(path, most=1 << 40)
    own.append([Append("a", (b"x",))])
    with reader.reading() as database:
        # Somebody reads for long, so that what is written can't be copied into the file.
        database.execute("SELECT * FROM events").fetchone()
        for _ in range(20):
            own.append([Append("a", (b"x" * MIB,))])
        assert wal(path) > 16 * MIB
        own.truncate_wal()  # harmless, and waits for nobody
    own.truncate_wal()
    assert wal(path) == 0
    own.close()
    reader.close()
