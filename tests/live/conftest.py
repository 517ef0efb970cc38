"""Servers shared by the live tests, and the tools that a machine may lack."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from functools import cache

import pytest

from tests.live.kit.aimock import Aimock, running_aimock
from tests.live.kit.kinds import probe_server
from tests.live.kit.runs import run_service
from tests.live.kit.scripted import ScriptedAnswer, ScriptedUpstream, scripted_upstream
from tests.live.kit.servers import Server
from tests.live.kit.services import SECRET, logs, make_token, production, service
from tests.live.kit.stores import Store

_tags = itertools.count()


@pytest.fixture(scope="session")
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Server]]:
    """Starts the probe on a kind of server, once for the whole session."""
    started: dict[str, Server] = {}
    with contextlib.ExitStack() as stack:

        def start(kind: str) -> Server:
            if kind not in started:
                grace = ["--graceful-timeout", "6"] if kind.startswith("gunicorn") else []
                directory = tmp_path_factory.mktemp(kind)
                started[kind] = stack.enter_context(probe_server(kind, directory, *grace))
            return started[kind]

        yield start


@pytest.fixture
def server(
    request: pytest.FixtureRequest, start_server: Callable[[str], Server]
) -> Iterator[Server]:
    """The probe app on the kind of server that the test is parametrised with."""
    running = start_server(request.param)
    before = len(running.log())
    yield running
    assert running.process.poll() is None, f"the server ended:\n{running.log()}"
    print(f"--- {running.kind} logged ---\n{running.log()[before:][-4000:]}")


@pytest.fixture
def tag() -> str:
    """A name for what one test does on a server that others use too."""
    return f"tag-{next(_tags)}"


@pytest.fixture(scope="session")
def aimock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aimock]:
    """A third party's OpenAI-compatible server; no test leaves it a stream that goes on."""
    with running_aimock(tmp_path_factory.mktemp("aimock")) as started:
        yield started


@pytest.fixture(scope="module")
def upstream(aimock: Aimock) -> Aimock:
    """The same, without what other modules have asked: tests read all of its journal."""
    aimock.forget()
    return aimock


@pytest.fixture(scope="session")
def store(request: pytest.FixtureRequest) -> Store:
    """What services keep all in: files, or what a test is marked with, see `on_every_store`."""
    chosen: Store = getattr(request, "param", logs)
    return chosen


@pytest.fixture(scope="session")
def relay(tmp_path_factory: pytest.TempPathFactory, aimock: Aimock) -> Iterator[Server]:
    """Two workers in front of it: a token or a loopback client will do.

    Their heartbeats come between any two words of a slow story.
    """
    settings = {"SSEFLASK_HEARTBEAT": "0.2"}
    with run_service(tmp_path_factory.mktemp("relay"), aimock, settings=settings) as started:
        yield started


@pytest.fixture(scope="session")
def access_token() -> str:
    """A token that the services with a secret accept."""
    return make_token()


@pytest.fixture(scope="session")
def development(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The service in development mode with the built-in demo model."""
    with service(tmp_path_factory.mktemp("development")) as started:
        yield started


@pytest.fixture(scope="session")
def channels_on(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Store], Server]]:
    """Starts the service `channels`, once for each store."""
    with contextlib.ExitStack() as stack:

        @cache
        def start(store: Store) -> Server:
            directory = tmp_path_factory.mktemp("channels")
            settings = {
                "SSEFLASK_HEARTBEAT": "1",
                "SSEFLASK_MAX_BODY": "400000",
                **store(directory),
            }
            return stack.enter_context(service(directory, workers=2, settings=settings))

        yield start


@pytest.fixture
def channels(channels_on: Callable[[Store], Server], store: Store) -> Server:
    """The service with two workers and a store of channels, for this machine's clients.

    Each test uses channels of its own.
    """
    return channels_on(store)


@pytest.fixture
def channel(tag: str) -> str:
    """A channel that only this test uses."""
    return f"test.{tag}"


@pytest.fixture(scope="session")
def scripted() -> Iterator[ScriptedUpstream]:
    """An upstream whose answers the tests direct."""
    with scripted_upstream() as started:
        yield started


@pytest.fixture
def script(scripted: ScriptedUpstream) -> Iterator[ScriptedAnswer]:
    """One answer of it, for one test; cut off if the test leaves it unfinished."""
    made = scripted.script()
    yield made
    made.hang_up()


@pytest.fixture(scope="session")
def runs_on(
    tmp_path_factory: pytest.TempPathFactory, scripted: ScriptedUpstream
) -> Iterator[Callable[[Store], Server]]:
    """Starts the service `runs`, once for each store."""
    with contextlib.ExitStack() as stack:

        @cache
        def start(store: Store) -> Server:
            directory = tmp_path_factory.mktemp("runs")
            settings = {"SSEFLASK_MAX_PROMPT": "12000000", **store(directory)}
            return stack.enter_context(run_service(directory, scripted, settings=settings))

        yield start


@pytest.fixture
def runs(runs_on: Callable[[Store], Server], store: Store) -> Server:
    """The service with two workers in front of the upstream that the tests direct."""
    return runs_on(store)


@pytest.fixture(scope="session")
def guarded_runs(
    tmp_path_factory: pytest.TempPathFactory, scripted: ScriptedUpstream
) -> Iterator[Server]:
    """The same as a platform starts it: every request needs a token; with both stores."""
    directory = tmp_path_factory.mktemp("guarded-runs")
    settings = {
        "SSEFLASK_SECRET": SECRET,
        "SSEFLASK_HEARTBEAT": "0.5",
        "SSEFLASK_RATE_LIMIT": "off",
        "WEB_CONCURRENCY": "2",
        **scripted.settings(),
    }
    with production(directory, settings) as started:
        yield started
        assert "eyJ" not in started.log(), "a token is in the log"
