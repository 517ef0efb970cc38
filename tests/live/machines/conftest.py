"""Three machines and the server of Redis that they share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.live.kit.linked_machines import LinkedMachine, linked_machines
from tests.live.kit.redis_server import RedisServer, redis_server
from tests.live.kit.scripted import ScriptedUpstream

#: How many runs of an account may go on.
MAX_RUNS = 6


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One server for a module, which has all on disk before it answers."""
    with redis_server(tmp_path_factory.mktemp("redis"), persistence="always") as server:
        yield server


@pytest.fixture(scope="module")
def machines(
    tmp_path_factory: pytest.TempPathFactory, redis: RedisServer, scripted: ScriptedUpstream
) -> Iterator[list[LinkedMachine]]:
    """Three machines for a module."""
    directory = tmp_path_factory.mktemp("machines")
    settings = {"SSEFLASK_MAX_RUNS": str(MAX_RUNS), **scripted.settings()}
    with linked_machines(directory, redis, 3, settings) as started:
        yield started


@pytest.fixture
def trio(machines: list[LinkedMachine]) -> list[LinkedMachine]:
    """The same, whatever an earlier test has done to them and their links."""
    for machine in machines:
        machine.wait_until_available()
    return machines
