"""Calls with a link: how many at a time, in which order, and how they end."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from sseflask.store.api import StoreBusy
from sseflask.store.redis.link import Link
from sseflask.store.redis.link_calls import LinkCalls
from sseflask.store.redis.server import RedisServer
from tests.redis_server import RedisServerProcess


@pytest.fixture
def own(server: RedisServerProcess) -> Iterator[RedisServer]:
    own = RedisServer.open(server.place())
    yield own
    own.close()


def ignore(_result: object, _error: Exception | None) -> None:
    pass


class Blocked:
    """Calls that go on when a test says so."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.begun = threading.Semaphore(0)

    def __call__(self, _link: Link) -> object:
        self.begun.release()
        return self.go_on.wait(20)


def test_some_are_made_at_a_time_with_a_connection_each(own: RedisServer) -> None:
    calls, blocked = LinkCalls(own, 2), Blocked()
    links: list[Link] = []
    for _ in range(2):
        calls.submit(blocked, ignore)
        assert blocked.begun.acquire(timeout=20)
    for _ in range(3):
        calls.submit(links.append, ignore)
    assert (calls.waiting, links) == (3, [])
    blocked.go_on.set()
    for _ in range(5):
        assert calls.call(lambda link: link.command("PING"), 20) == b"PONG"
    assert 1 <= len(set(links)) <= 2
    calls.close(20)


def test_one_at_a_time_keeps_the_order_and_the_connection(own: RedisServer) -> None:
    calls, seen = LinkCalls(own, 1), list[tuple[int, Link]]()
    for number in range(50):
        calls.submit(lambda link, number=number: seen.append((number, link)), ignore)  # type: ignore[misc]  # mypy knows no default of a lambda
    calls.close(20)
    assert [number for number, _ in seen] == list(range(50)), "all that came before the end"
    assert len({link for _, link in seen}) == 1


def test_what_nobody_waits_for_any_more_is_not_begun(own: RedisServer) -> None:
    calls, blocked = LinkCalls(own, 1), Blocked()
    begun: list[Link] = []
    calls.submit(blocked, ignore)
    with pytest.raises(StoreBusy, match=r"within 0\.05 s"):
        calls.call(begun.append, 0.05)
    blocked.go_on.set()
    calls.close(20)
    assert begun == []


def test_what_fails_is_logged_only_if_nobody_hears_of_it(
    own: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    calls = LinkCalls(own, 1)

    def fail(_link: Link) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        calls.call(fail, 20)
    assert caplog.records == []
    calls.try_soon(fail)
    calls.close(20)
    assert "a call to the Redis server failed" in caplog.text


def test_what_was_never_used_has_ended_at_once(own: RedisServer) -> None:
    before = threading.active_count()
    calls = LinkCalls(own, 4)
    calls.close(20)
    assert threading.active_count() == before
