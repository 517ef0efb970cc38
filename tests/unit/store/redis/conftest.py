"""A server of one test, which may do to it what it likes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from tests import redis_server
from tests.redis_cluster import Pair, paired
from tests.redis_server import RedisServerProcess


@pytest.fixture(params=redis_server.programs() or ["redis"])
def program(request: pytest.FixtureRequest) -> str:
    assert redis_server.programs(), redis_server.NONE
    return redis_server.programs()[request.param]


@pytest.fixture
def server(program: str) -> Iterator[RedisServerProcess]:
    """It keeps nothing when it ends."""
    with redis_server.running(program) as server:
        yield server


@pytest.fixture
def client(server: RedisServerProcess) -> Iterator[Redis]:
    """What a test itself does to the server."""
    with server.client() as client:
        yield client


@pytest.fixture
def url(server: RedisServerProcess) -> str:
    """With a prefix that nobody else has."""
    return server.place()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with paired(tmp_path) as pair:
        yield pair
