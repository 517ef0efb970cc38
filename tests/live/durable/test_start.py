"""Runs without a response: begun by a command, in a thread, and asked for later."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Iterator

from tests.live.kit.durable import (
    LIMIT,
    Place,
    Story,
    everywhere,
    take,
    texts,
    with_two_workers,
)
from tests.live.kit.runs import path_of
from tests.live.kit.waiting import until
from tests.live.kit.workers import connect_to, other_worker

#: Where a command of another process reaches the runs of a server.
everywhere_shared = with_two_workers


@contextlib.contextmanager
def command(place: Place, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    with place.cli(*arguments) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def printed(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    assert line, process.stderr and process.stderr.read()
    return line


def query(tag: str, **asked: object) -> str:
    return path_of("", tag=tag, **asked).lstrip("?")


@everywhere
def test_started_by_a_request_that_ends(place: Place, tag: str) -> None:
    """The request is answered at once; the run goes on without viewers."""
    run = place.start("numbers", tag, count=3, gated=1)
    assert place.result(run)["state"] == "running"
    place.allow(tag, 3)
    assert place.read(run).data == texts(tag, 3)


@everywhere
def test_started_in_a_thread(place: Place, tag: str) -> None:
    """Without an application's context or a request's."""
    run = place.start("numbers", tag, path="/start-in-thread", count=3, owner="ann")
    assert place.read(run, owner="ann").data == texts(tag, 3)
    assert place.ask(path_of(f"/attach/{run}", owner="bob")).status == 404


@everywhere_shared
def test_started_by_a_command(place: Place, tag: str) -> None:
    """It lives as long as its run, which clients of the server read and resume."""
    with command(place, "begin", "numbers", query(tag, count=4, gated=1)) as process:
        run = printed(process)
        place.allow(tag, 2)
        with place.attach(run) as stream:
            seen = take(stream, 2)
            assert place.result(run)["state"] == "running"
        place.allow(tag, 4)
        with place.attach(run, seen[-1].id) as stream:
            story = Story.of(run, [*seen, *stream.rest()])
        assert story.data == texts(tag, 4)
        assert (story.end.state, story.end.value) == ("finished", {"count": 4})
        assert process.wait(20) == 0, process.stderr and process.stderr.read()
    assert place.starts(tag) == [process.pid]
    assert place.read(run) == story


@everywhere_shared
def test_a_short_one_by_a_command(place: Place, tag: str) -> None:
    """All is stored when the command has ended."""
    with command(place, "begin", "numbers", query(tag, count=100)) as process:
        run = printed(process)
        assert process.wait(30) == 0
    said = place.result(run)
    assert (said["state"], said["items"]) == ("finished", texts(tag, 100))


@everywhere_shared
def test_a_command_is_stopped_by_a_client(place: Place, tag: str) -> None:
    """It has no gevent: at its next yield."""
    with command(place, "begin", "endless", query(tag, interval=0.05)) as process:
        run = printed(process)
        with place.attach(run) as stream:
            seen = take(stream, 3)
            assert place.stop(run) == "stopped"
            story = Story.of(run, [*seen, *stream.rest()])
        assert story.end.state == "stopped"
        place.wait_for(tag, "finally")
        assert process.wait(20) == 0


@everywhere_shared
def test_a_command_that_is_killed(place: Place, tag: str) -> None:
    with command(place, "begin", "endless", query(tag, interval=0.05)) as process:
        run = printed(process)
        with place.attach(run) as stream:
            seen = take(stream, 3)
            killed = time.monotonic()
            process.kill()
            story = Story.of(run, [*seen, *stream.rest()])
        assert time.monotonic() - killed < LIMIT + 3
    assert story.end.code == "interrupted"
    assert story.data == [f"{tag}:{n}:" for n in range(len(story.data))]


@everywhere_shared
def test_ctrl_c_on_a_command(place: Place, tag: str) -> None:
    """Its run ends at once, and its `finally` runs."""
    with command(place, "begin", "endless", query(tag, interval=0.05)) as process:
        run = printed(process)
        until(lambda: place.result(run)["items"], "it yields")
        process.send_signal(signal.SIGINT)
        process.wait(20)
    assert "finally" in place.marks(tag)
    place.wait_for_state(run, "interrupted", seconds=LIMIT + 3)
    assert place.read(run).end.code == "interrupted"


@everywhere_shared
def test_commands_ask_and_stop(place: Place, tag: str) -> None:
    """Of a run that a server writes."""
    run = place.start("endless", tag)
    with command(place, "ask", run) as process:
        assert printed(process) == "running"
    with command(place, "end", run) as process:
        assert printed(process) == "stopped"
    place.wait_for(tag, "finally")
    with command(place, "ask", run) as process:
        assert printed(process) == "stopped"


@with_two_workers
def test_cancel_when_the_first_viewer_was_elsewhere(place: Place, tag: str) -> None:
    """For a moment only: its writer's worker may not have heard of it."""
    run = place.start("endless", tag, on_disconnect="cancel", interval=0.02)
    where = connect_to(place.server, other_worker(place.server, place.writer(tag)))
    with place.attach(run, where=where) as stream:
        take(stream, 1)
    place.wait_for(tag, "finally", seconds=20)  # ten of them are for its first viewer
    assert place.read(run).end.state == "cancelled"


@everywhere
def test_cancel_of_a_run_that_never_had_a_viewer(place: Place, tag: str) -> None:
    """``cancel`` is about viewers that leave: the run is not over before one has come."""
    run = place.start("endless", tag, on_disconnect="cancel", interval=0.02)
    until(lambda: len(place.result(run)["items"]) > 5, "it goes on")
    assert place.result(run)["state"] == "running"
    with place.attach(run) as stream:
        take(stream, 1)
    place.wait_for(tag, "finally")
    assert place.read(run).end.state == "cancelled"
