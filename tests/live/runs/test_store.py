"""The run store is full, read-only or deleted: clients get an error, and the server goes on."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.live.channels.test_store import disk, remount, write_lock
from tests.live.kit.clients import open_stream
from tests.live.kit.connection import Answer
from tests.live.kit.events import Sent
from tests.live.kit.publishing import error_of
from tests.live.kit.run_events import end_of, text_of
from tests.live.kit.runs import ask, path_of, replay, rest, run_of, run_service, start
from tests.live.kit.scripted import ScriptedAnswer, ScriptedUpstream
from tests.live.kit.servers import Server
from tests.live.kit.waiting import until

__all__ = ["disk"]

#: The service tries for 20 s to store what it can't.
pytestmark = pytest.mark.waits_long

#: Large enough for a small disk to be full soon.
FILLING = "x" * 100_000


@pytest.fixture(scope="module")
def stored(
    tmp_path_factory: pytest.TempPathFactory, scripted: ScriptedUpstream
) -> Iterator[Server]:
    """Two workers with their store in a directory; each test undoes what it does to the file."""
    directory = tmp_path_factory.mktemp("stored")
    with run_service(directory, scripted, settings={"SSEFLASK_HEARTBEAT": "0.1"}) as server:
        yield server


def started(server: Server, script: ScriptedAnswer) -> list[Sent] | Answer:
    """Start a run: all that it says, or the refusal."""
    stream = start(server, script, format="text")
    with stream:
        if stream.head.status == 200:
            return rest(stream)
        return Answer(stream.head.status, stream.head.headers, stream.connection.body(stream.head))


def in_trouble(found: list[Sent] | Answer) -> bool:
    """Whether the error says that the store can't be written, before the first byte or in band."""
    if isinstance(found, Answer):
        error_of(found, 503)
        assert int(found.headers["retry-after"]) >= 0
        return True
    return last_event(found) != "done"


def last_event(events: list[Sent]) -> str | None:
    """The type of the last event; of a failure that could not be stored the id is not asked for."""
    assert events[-1].event in ("done", "failure"), "it has an end"
    return events[-1].event


def assert_trouble_and_recovery(
    server: Server,
    scripted: ScriptedUpstream,
    trouble: Callable[[], None],
    recover: Callable[[], None],
) -> None:
    healthy = scripted.script()
    healthy.say("one")
    healthy.finish()
    large = scripted.script()
    large.say(*[FILLING] * 10)
    large.finish()
    assert not in_trouble(started(server, healthy))
    with start(server, healthy) as stream:
        before = run_of(stream)
        rest(stream)  # until its end is stored: a run that goes on is viewed by writing
    trouble()
    until(lambda: in_trouble(started(server, large)), "a run is refused or fails", seconds=40)
    assert ask(server, "/healthz").status == 200
    assert text_of("text", replay(server, before, "text")) == "one", "what is stored can be read"
    recover()
    until(lambda: not in_trouble(started(server, healthy)), "runs go well again", pause=0.2)
    assert ask(server, "/healthz").status == 200


def limit(server: Server, allowed: int) -> None:
    for worker in server.workers():
        _, hard = worker.rlimit(psutil.RLIMIT_FSIZE)
        worker.rlimit(psutil.RLIMIT_FSIZE, (allowed, hard))


def test_a_file_that_can_not_grow(stored: Server, scripted: ScriptedUpstream) -> None:
    assert_trouble_and_recovery(
        stored,
        scripted,
        lambda: limit(stored, 1_000_000),
        lambda: limit(stored, resource.RLIM_INFINITY),
    )


def test_a_full_disk(tmp_path: Path, disk: Path, scripted: ScriptedUpstream) -> None:
    settings = {"SSEFLASK_RUN_LOG": str(disk / "runs.sqlite")}
    with run_service(tmp_path, scripted, workers=1, settings=settings) as server:
        assert_trouble_and_recovery(
            server, scripted, lambda: None, lambda: remount(disk, "size=200m")
        )


def test_a_disk_that_is_full_in_mid_answer(stored: Server, script: ScriptedAnswer) -> None:
    """No client waits: the stream ends with a failure, and the upstream's request is closed."""
    script.say("one")
    with start(stored, script, format="text") as stream:
        run = run_of(stream)
        assert stream.next().data == "one"
        limit(stored, 200_000)
        for _ in range(20):
            script.say(FILLING)
        assert last_event(rest(stream)) == "failure"
    script.wait_until_left()
    assert ask(stored, "/healthz").status == 200
    limit(stored, resource.RLIM_INFINITY)

    def read_again() -> str:
        if ask(stored, f"/runs/{run}").status != 200:
            return ""
        events = replay(stored, run, "text")
        return end_of("text", events) if text_of("text", events).startswith("one") else ""

    until(lambda: read_again().startswith("error:"), "it is read and written again", pause=0.2)
    assert script.count == 1


def test_a_disk_that_is_read_only(tmp_path: Path, disk: Path, scripted: ScriptedUpstream) -> None:
    """Before a run nothing is asked of the upstream: it could not be stored."""
    script = scripted.script()
    script.say("one")
    script.finish()
    settings = {"SSEFLASK_RUN_LOG": str(disk / "runs.sqlite")}
    with run_service(tmp_path / "first", scripted, workers=1, settings=settings) as server:
        assert not in_trouble(started(server, script))
    remount(disk, "ro")
    with run_service(tmp_path / "second", scripted, workers=1, settings=settings) as server:
        refusal = started(server, script)
        assert isinstance(refusal, Answer)
        error_of(refusal, 503)
        assert int(refusal.headers["retry-after"]) >= 0
        assert script.count == 1
        assert ask(server, "/healthz").status == 200
        remount(disk, "rw")
        until(lambda: not in_trouble(started(server, script)), "runs go well again", pause=0.2)


@pytest.mark.parametrize("running", [False, True])
def test_the_file_is_deleted(tmp_path: Path, scripted: ScriptedUpstream, running: bool) -> None:
    """Whatever becomes of the runs: each stream has an end, and the server serves."""
    script, later = scripted.script(), scripted.script()
    script.say("one")
    later.say("two")
    later.finish()
    with run_service(tmp_path, scripted) as server:
        with start(server, script, format="text") as stream:
            run = run_of(stream)
            stream.next()
            if not running:
                script.finish()
                rest(stream)
            for ending in ("", "-wal", "-shm"):
                (tmp_path / f"runs.sqlite{ending}").unlink(missing_ok=True)
            if running:
                script.say("and more")
                script.finish()
                assert last_event(rest(stream))
        for _ in range(10):
            in_trouble(started(server, later))
            assert ask(server, "/healthz").status == 200
            answer = ask(server, f"/runs/{run}")
            assert answer.status in (200, 404, 503)


def test_another_process_holds_the_write_lock(stored: Server, script: ScriptedAnswer) -> None:
    """For a moment: heartbeats go on, the run waits and loses nothing."""
    script.say("one ")
    path = path_of("/sse/openai_out", user_message=script.message, format="text")
    with open_stream(stored, path) as stream:
        run = run_of(stream)
        assert stream.next().data == "one "
        with write_lock(stored.directory / "runs.sqlite"):
            script.say("two")
            script.finish()
            assert ask(stored, "/healthz").status == 200
            assert stream.next_comments(3) == ["ping"] * 3, "and nothing that is not stored"
        events = rest(stream)
    assert (text_of("text", events), end_of("text", events)) == ("two", "stop")
    events = replay(stored, run, "text")
    assert text_of("text", events) == "one two", events


def test_a_file_that_is_no_database(tmp_path: Path, scripted: ScriptedUpstream) -> None:
    """Runs are refused, or the service does not start; the file is not overwritten."""
    script = scripted.script()
    script.say("one")
    script.finish()
    file = tmp_path / "runs.sqlite"
    file.write_bytes(b"somebody's letters" * 1000)
    with contextlib.ExitStack() as stack:
        server = None
        with contextlib.suppress(AssertionError):  # it may refuse to start
            server = stack.enter_context(run_service(tmp_path, scripted, workers=1))
        if server is not None:
            refusal = started(server, script)
            assert isinstance(refusal, Answer)
            error_of(refusal, 503)
            assert ask(server, "/healthz").status == 200
    assert file.read_bytes() == b"somebody's letters" * 1000
    assert script.count == 0
