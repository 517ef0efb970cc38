"""The write-ahead log is copied while nobody waits for the store, but not too late."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import pytest

from sseflask.store.api import Append, EventLimits
from sseflask.store.sqlite.event_database import EventDatabase
from sseflask.store.sqlite.event_store import SqliteEventStore
from sseflask.store.sqlite.file import SqliteFile
from sseflask.store.sqlite.wal_copying import QUIET, WalCopying
from tests.live.kit.waiting import until

LIMITS = EventLimits(1_000_000, 86_400)


class Database:
    """A database with a number of pages to copy, of which `copy_wal` leaves some."""

    def __init__(self, pages: int | None) -> None:
        self.pages = pages
        self.left = 0
        self.copies = 0

    def pages_to_copy(self) -> int | None:
        return self.pages

    def copy_wal(self) -> None:
        self.copies += 1
        self.pages = self.left


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def copying(clock: Clock) -> WalCopying:
    return WalCopying(clock)


def look(copying: WalCopying, database: Database, served: bool = False) -> int:
    """Let it look. Returns how often it has copied so far."""
    copying.look(cast(SqliteFile, database), served)
    return database.copies


@pytest.mark.parametrize("pages", [None, 0, 999])
def test_what_is_short_is_left(copying: WalCopying, clock: Clock, pages: int | None) -> None:
    for _ in range(3):
        assert look(copying, Database(pages), True) == 0
        assert copying.due == math.inf
        clock.now += 1


def test_it_waits_until_there_was_no_call_for_a_moment(copying: WalCopying, clock: Clock) -> None:
    database = Database(1000)
    for _ in range(10):
        assert look(copying, database, True) == 0
        assert copying.due == clock.now + QUIET
        clock.now += QUIET / 2
        assert look(copying, database) == 0
    clock.now = copying.due
    assert look(copying, database) == 1
    assert copying.due == math.inf


def test_under_a_flood_it_does_not_wait_for_long(copying: WalCopying, clock: Clock) -> None:
    database, began = Database(1000), clock.now
    while not look(copying, database, True):
        clock.now += QUIET / 2
    assert clock.now - began == pytest.approx(0.25, abs=QUIET)


def test_what_a_reader_holds_up_is_tried_again_and_not_at_once(
    copying: WalCopying, clock: Clock
) -> None:
    database = Database(1000)
    database.left = 1500
    look(copying, database)
    clock.now = copying.due
    assert look(copying, database) == 1
    again = clock.now + 0.25
    assert look(copying, database, True) == 1
    assert copying.due == again
    clock.now = again
    assert look(copying, database) == 2


def test_another_process_may_have_copied_it(copying: WalCopying, clock: Clock) -> None:
    database = Database(1000)
    look(copying, database)
    database.pages = 10
    clock.now = copying.due
    assert look(copying, database) == 0
    assert copying.due == math.inf


class Listener:
    """Takes no notice."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


def test_a_store_copies_what_it_stores_and_what_others_leave(path: Path) -> None:
    store, other = SqliteEventStore(str(path), LIMITS), EventDatabase(str(path), LIMITS)
    store.follow(Listener())
    store.position()
    other.open()

    def is_copied() -> bool:
        left = other.pages_to_copy()
        return left is not None and left < 1000

    for append in (store.append, lambda append: other.append([append])):
        for _ in range(400):
            append(Append("a", (b"x",)))  # the other one's process may die after that
        until(is_copied, "the copy of the log")
    other.close()
    store.close()
    assert store.join(30)
