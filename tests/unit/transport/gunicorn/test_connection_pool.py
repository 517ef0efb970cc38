"""A worker's connections are counted, with a greenlet or without one."""

from __future__ import annotations

from collections.abc import Callable
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


class Server:
    """Hands its connections over, and goes on with others."""

    def __init__(self, pool: ConnectionPool) -> None:
        self.pool = pool
        self.greenlets: list[Any] = []
        self.served: list[int] = []

    def __call__(self, number: int, act: Callable[[], object] = bool) -> None:
        while True:
            self.greenlets.append(gevent.getcurrent())
            act()
            self.served.append(number)
            arguments = self.pool.next()
            if arguments is None:
                return
            number, *rest = arguments
            act = rest[0] if rest else bool


def test_a_greenlet_whose_connection_was_handed_over_serves_the_next() -> None:
    pool = ConnectionPool(10)
    serve = Server(pool)
    for number in range(3):
        pool.spawn(serve, number, pool.hand_over)
        if number:  # two in one turn of the loop, and then another one
            assert pool.join(SECONDS)
    assert serve.served == [0, 1, 2]
    assert len(set(serve.greenlets)) == 1
    assert len(pool) == 0


@pytest.mark.parametrize("why", ["ended", "failed", "blocked", "another function"])
def test_no_other_greenlet_serves_a_second_connection(
    why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Somebody may know it, and kill it while it serves another client."""
    pool = ConnectionPool(10)
    servers = [Server(pool), Server(pool)]

    def act() -> None:
        if why != "ended":
            pool.hand_over()
        if why == "failed":
            raise ZeroDivisionError
        if why == "blocked":
            gevent.sleep(0)

    for number in range(2):
        pool.spawn(servers[number if why == "another function" else 0], number, act)
        assert pool.join(SECONDS)
    assert len(set(servers[0].greenlets + servers[1].greenlets)) == 2
    gevent.sleep(0)
    # With another function it is dropped: only this test knows it still.
    assert servers[0].greenlets[0].dead or why == "another function"
    assert ("ZeroDivisionError" in capsys.readouterr().err) == (why == "failed")


def test_a_connection_that_blocks_holds_no_other_up() -> None:
    pool, end = ConnectionPool(10), Signal()
    serve = Server(pool)

    def block() -> None:
        end.wait(SECONDS)
        pool.hand_over()

    for number in range(4):
        pool.spawn(serve, number, block if number == 1 else pool.hand_over)
    gevent.sleep(0)
    assert serve.served == [0, 2, 3]
    assert len(pool) == 1
    end.set()
    assert pool.join(SECONDS)
    assert serve.served == [0, 2, 3, 1]


def test_a_connection_knows_nothing_of_the_one_before() -> None:
    pool = ConnectionPool(10)
    serve = Server(pool)
    variable: ContextVar[str] = ContextVar("variable", default="")
    seen: list[Any] = []

    def act() -> None:
        here: Any = gevent.getcurrent()
        seen.append((variable.get(), getattr(here, "connection", None)))
        variable.set("mine")
        here.connection = "mine"
        pool.hand_over()

    for number in range(2):
        pool.spawn(serve, number, act)
        assert pool.join(SECONDS)
    assert len(set(serve.greenlets)) == 1
    assert seen == [("", None), ("", None)]


def test_a_greenlet_that_waits_for_a_connection_may_be_killed() -> None:
    pool = ConnectionPool(10)
    serve = Server(pool)
    pool.spawn(serve, 0, pool.hand_over)
    assert pool.join(SECONDS)
    gevent.sleep(0)
    with gevent.Timeout(SECONDS):
        serve.greenlets[0].kill()
    pool.spawn(serve, 1, pool.hand_over)
    assert pool.join(SECONDS)
    assert serve.served == [0, 1]
    assert len(pool) == 0


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
