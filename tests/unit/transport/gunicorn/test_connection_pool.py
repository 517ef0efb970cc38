"""A worker's connections are counted, with a greenlet or without one."""

from __future__ import annotations

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
