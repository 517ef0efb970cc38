"""Requests are counted on a real server, for all that use it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from sseflask.store.redis.rate_counter import RedisRateCounter
from tests.redis_server import RedisServerProcess


@pytest.fixture
def counters(server: RedisServerProcess) -> Iterator[list[RedisRateCounter]]:
    """Those of two machines: with other URLs a process has two of them."""
    place = server.place()
    with (
        closing(RedisRateCounter(place)) as one,
        closing(RedisRateCounter(f"{place}&client_name=other")) as other,
    ):
        yield [one, other]


def test_machines_count_together(counters: list[RedisRateCounter]) -> None:
    one, other = counters
    assert [each.count("a", 3, 60) for each in (one, other, one)] == [0, 0, 0]
    waits = [each.count("a", 3, 60) for each in (one, other)]
    assert all(wait is not None and 50 < wait <= 60 for wait in waits)
    assert other.count("b", 3, 60) == 0, "another account"


def test_a_window_ends(counters: list[RedisRateCounter], server: RedisServerProcess) -> None:
    one, other = counters
    assert one.count("a", 1, 60) == 0
    assert other.count("a", 1, 60)
    with closing(server.client()) as client:
        (key,) = client.keys("*")
        assert 50_000 < client.pttl(key) <= 60_000
        client.pexpire(key, 0)
    assert other.count("a", 1, 60) == 0


def test_many_at_once_get_exactly_what_is_allowed(counters: list[RedisRateCounter]) -> None:
    answers: list[float | None] = []

    def ask(counter: RedisRateCounter) -> None:
        for _ in range(50):
            answers.append(counter.count("a", 120, 60))

    threads = [threading.Thread(target=ask, args=(each,)) for each in counters * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(answers) == 200
    assert answers.count(0) == 120


def test_a_server_that_is_away_counts_nothing(
    counters: list[RedisRateCounter], server: RedisServerProcess
) -> None:
    one, _ = counters
    assert one.count("a", 1, 60) == 0
    server.stop()
    assert one.count("a", 1, 60) is None
    server.start()
    while one.count("a", 1, 60) is None:
        threading.Event().wait(0.05)


def test_a_full_server_counts_nothing(
    counters: list[RedisRateCounter], server: RedisServerProcess
) -> None:
    with closing(server.client()) as client:
        client.config_set("maxmemory", "1")
        client.config_set("maxmemory-policy", "noeviction")
        assert counters[0].count("a", 1, 60) is None
        client.config_set("maxmemory", "0")
    assert counters[0].count("a", 1, 60) == 0


def test_a_window_always_ends(counters: list[RedisRateCounter], server: RedisServerProcess) -> None:
    one, _ = counters
    assert one.count("a", 1, 60) == 0
    with closing(server.client()) as client:
        (key,) = client.keys("*")
        client.persist(key)
        wait = one.count("a", 1, 60)
        assert wait is not None
        assert 50 < wait <= 60
        assert client.pttl(key) > 50_000
