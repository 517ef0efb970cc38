"""Servers with durable generators, shared by the tests."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest

from tests import redis_server
from tests.live.kit.durable import Place, durable


@pytest.fixture(scope="session")
def start_place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Place]]:
    """Starts a kind of server, with the store that its name has, once for the whole session."""
    started: dict[str, Place] = {}
    with contextlib.ExitStack() as stack:

        def start(name: str) -> Place:
            if name not in started:
                kind, _, store = name.partition(" ")
                runs = ""
                if store:
                    if not redis_server.programs():
                        pytest.skip(redis_server.NONE)
                    runs = redis_server.shared(next(iter(redis_server.programs()))).place()
                directory = tmp_path_factory.mktemp(name.replace(" ", "-"))
                started[name] = stack.enter_context(durable(kind, directory, runs))
            return started[name]

        yield start


@pytest.fixture
def place(request: pytest.FixtureRequest, start_place: Callable[[str], Place]) -> Iterator[Place]:
    """The application on the kind of server that the test is parametrised with."""
    found = start_place(request.param)
    found.wait_until_whole()
    before = len(found.server.log())
    yield found
    assert found.server.process.poll() is None, f"the server ended:\n{found.server.log()}"
    print(f"--- {found.server.kind} logged ---\n{found.server.log()[before:][-4000:]}")


@pytest.fixture
def key(tag: str) -> str:
    """An idempotency key that only this test uses."""
    return f"key-{tag}"
