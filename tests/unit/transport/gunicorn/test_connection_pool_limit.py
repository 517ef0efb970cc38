"""How many long requests a worker takes, and which connections make room for others."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sseflask.transport.gunicorn import connection_pool as module
from sseflask.transport.gunicorn.connection_pool import ConnectionLimit


class Waiting:
    """A connection that waits for its client."""

    silent = True

    def __init__(self, since: float = 1.0, *, blocked: bool = True, evictable: bool = True) -> None:
        self.since = since
        self.blocked = blocked
        self.evictable = evictable and blocked
        self.evicted = False

    def evict(self) -> None:
        self.evicted = True
        self.evictable = False


def limit_with(size: int, *waiting: Any) -> ConnectionLimit:
    limit = ConnectionLimit(size)
    for connection in waiting:
        limit.add()
        limit.wait(connection)
    return limit


@pytest.mark.parametrize(("size", "most"), [(1, 1), (2, 1), (40, 38), (10_000, 9_900)])
def test_long_requests_leave_some_connections_to_others(size: int, most: int) -> None:
    limit = ConnectionLimit(size)
    assert [limit.begin_long() for _ in range(most + 1)] == [True] * most + [False]
    limit.end_long()
    assert limit.begin_long()


def test_detached_streams_are_long_requests() -> None:
    limit: Any = ConnectionLimit(2)

    limit.detached = SimpleNamespace(streams=1)
    assert not limit.begin_long()


def test_a_limit_is_logged_once_and_again_after_it_was_better(
    caplog: pytest.LogCaptureFixture,
) -> None:
    limit = ConnectionLimit(20)
    for _ in range(25):
        limit.begin_long()
    assert len(caplog.messages) == 1
    assert "19 streams" in caplog.messages[0]
    for _ in range(3):
        limit.end_long()
    assert [limit.begin_long() for _ in range(4)] == [True, True, True, False]
    assert len(caplog.messages) == 2


def test_those_that_have_waited_longest_make_room() -> None:
    waiting = [Waiting(since) for since in (1.0, 2.0, 3.0, 4.0)]
    limit = limit_with(4, *waiting)
    limit.make_room()
    assert [each.evicted for each in waiting] == [True, True, False, False], "half at a time"
    limit.make_room()
    assert [each.evicted for each in waiting] == [True, True, False, False], "they are leaving"


def test_none_makes_room_while_there_is_some() -> None:
    waiting = Waiting()
    limit_with(2, waiting).make_room()
    assert not waiting.evicted


def test_what_is_not_evictable_stays() -> None:
    waiting = Waiting(evictable=False)
    limit_with(1, waiting).make_room()
    assert not waiting.evicted


def test_that_all_are_busy_is_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_STUCK", 0.0)
    limit = limit_with(1, Waiting(blocked=False))
    for _ in range(3):
        limit.make_room()
    assert len(caplog.messages) == 1
    assert "all the 1 connections" in caplog.messages[0]
    limit.remove()
    limit.add()
    for _ in range(3):
        limit.make_room()
    assert len(caplog.messages) == 2
