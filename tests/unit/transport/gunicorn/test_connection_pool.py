"""A worker's connections are counted, with a greenlet or without one."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

import gevent
import pytest
from gevent.event import Event as Signal

from sseflask.transport.gunicorn.connection_pool import ConnectionPool

SECONDS = 10.0


def test_a_connection_counts_until_its_greenlet_ends() -> None:
    pool, end = ConnectionPool(2), Signal()
    room: list[str] = []
    pool.spawn(end.wait, SECONDS)
    assert not pool.is_full(lambda: room.append("early"))
    pool.spawn(end.wait, SECONDS)
    assert pool.is_full(lambda: room.append("room"))
    assert len(pool) == 2
    end.set()
    assert pool.join(SECONDS)
    gevent.sleep(0)
    assert room == ["room"], "once"
    assert not pool.is_full(lambda: room.append("late"))


def test_a_greenlet_has_no_dictionary() -> None:
    """Which would be 200 bytes of what a stream costs."""
    pool, here = ConnectionPool(10), []
    pool.spawn(lambda: here.append(vars(gevent.getcurrent()).copy()))
    assert pool.join(SECONDS)
    assert here == [{}]


def test_a_connection_that_outlives_its_greenlet_counts_until_it_is_released() -> None:
    pool = ConnectionPool(1)
    pool.spawn(pool.hand_over)
    assert pool.join(SECONDS)
    assert pool.is_full(bool)
    pool.release()
    assert not pool.is_full(bool)


def test_it_may_get_a_greenlet_again() -> None:
    pool = ConnectionPool(1)
    done: list[int] = []
    pool.spawn(pool.hand_over)
    assert pool.join(SECONDS)
    pool.respawn(done.append, 1)
    assert len(pool) == 1
    assert pool.is_full(bool)
    assert pool.join(SECONDS)
    assert done == [1]
    assert not pool.is_full(bool)


def test_a_failed_greenlet_gives_its_connection_back(capsys: pytest.CaptureFixture[str]) -> None:
    pool = ConnectionPool(1)
    pool.spawn(lambda: 1 / 0)
    assert pool.join(SECONDS)
    assert not pool.is_full(bool)
    assert "ZeroDivisionError" in capsys.readouterr().err


@pytest.mark.parametrize("obeys", [True, False])
def test_all_are_killed_in_time(obeys: bool) -> None:
    pool = ConnectionPool(3)
    killed: list[int] = []
    end = Signal()

    def serve(number: int) -> None:
        try:
            end.wait(SECONDS)
        except gevent.GreenletExit:
            killed.append(number)
            if not obeys:
                end.wait(SECONDS)

    for number in range(3):
        pool.spawn(serve, number)
    gevent.sleep(0)
    with gevent.Timeout(SECONDS):
        pool.kill(0.05)
    assert sorted(killed) == [0, 1, 2]
    assert len(pool) == (0 if obeys else 3)
    end.set()
    assert pool.join(SECONDS)


def test_the_limit_is_asked_for_room_first() -> None:
    pool: Any = ConnectionPool(1)
    pool.limit.make_room = pool.release
    pool.spawn(pool.hand_over)
    assert pool.join(SECONDS)
    assert not pool.is_full(bool)


def test_a_greenlet_whose_connection_was_handed_over_serves_the_next() -> None:
    pool = ConnectionPool(10)
    seen: list[Any] = []

    def serve() -> None:
        seen.append(gevent.getcurrent())
        pool.hand_over()

    for number in range(3):
        pool.spawn(serve)
        if number:  # one after the other, and two in one turn of the loop
            assert pool.join(SECONDS)
    assert len(seen) == 3
    assert len(set(seen)) == 1
    assert pool.limit.full is False
    assert len(pool) == 0


@pytest.mark.parametrize("why", ["ended", "failed", "blocked"])
def test_no_other_greenlet_serves_a_second_connection(
    why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Somebody may know it, and kill it while it serves another client."""
    pool = ConnectionPool(10)
    seen: list[Any] = []

    def serve() -> None:
        seen.append(gevent.getcurrent())
        if why == "failed":
            pool.hand_over()
            raise ZeroDivisionError
        if why == "blocked":
            pool.hand_over()
            gevent.sleep(0)

    for _ in range(2):
        pool.spawn(serve)
        assert pool.join(SECONDS)
    assert len(set(seen)) == 2
    assert ("ZeroDivisionError" in capsys.readouterr().err) == (why == "failed")


def test_a_connection_that_blocks_holds_no_other_up() -> None:
    pool, end = ConnectionPool(10), Signal()
    done: list[int] = []

    def serve(number: int) -> None:
        if number == 1:
            end.wait(SECONDS)
        done.append(number)
        pool.hand_over()

    for number in range(4):
        pool.spawn(serve, number)
    gevent.sleep(0)
    assert done == [0, 2, 3]
    assert len(pool) == 1
    end.set()
    assert pool.join(SECONDS)
    assert done == [0, 2, 3, 1]


def test_a_connection_knows_nothing_of_the_one_before() -> None:
    pool = ConnectionPool(10)
    variable: ContextVar[str] = ContextVar("variable", default="")
    seen: list[Any] = []

    def serve(text: str) -> None:
        here: Any = gevent.getcurrent()
        seen.append((variable.get(), here.connection))
        variable.set(text)
        here.connection = text
        pool.hand_over()

    for text in ("first", "second"):
        pool.spawn(serve, text)
        assert pool.join(SECONDS)
    assert seen == [("", None), ("", None)]


def test_a_greenlet_that_waits_for_a_connection_may_be_killed() -> None:
    pool = ConnectionPool(10)
    seen: list[Any] = []

    def serve() -> None:
        seen.append(gevent.getcurrent())
        pool.hand_over()

    pool.spawn(serve)
    assert pool.join(SECONDS)
    gevent.sleep(0)
    with gevent.Timeout(SECONDS):
        seen[0].kill()
    assert seen[0].dead
    pool.spawn(serve)
    assert pool.join(SECONDS)
    assert len(set(seen)) == 2


def test_those_that_have_not_begun_are_killed_too() -> None:
    pool = ConnectionPool(10)
    ended: list[str] = []

    def serve() -> None:
        try:
            gevent.sleep(SECONDS)
        finally:
            ended.append("killed")

    pool.spawn(serve)
    with gevent.Timeout(SECONDS):
        pool.kill(SECONDS)
    assert ended == ["killed"]
    assert len(pool) == 0
