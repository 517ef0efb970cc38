"""The worker that writes a run is killed, paused and replaced; others read, stop and end it."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.live.kit.clients import Sent, Stream
from tests.live.kit.connection import fetch
from tests.live.kit.runs import connect_to, run_of
from tests.live.kit.servers import Server
from tests.live.kit.services import Upstream
from tests.live.kit.sockets import inode, owners
from tests.live.kit.stage import (
    FORMATS,
    Stage,
    Told,
    attach,
    attach_at,
    ended,
    other,
    path,
    read,
    stage_service,
    start,
    take,
    writer,
)
from tests.live.kit.waiting import settled, until

#: Within this time a run whose worker has died is ended by another one: the issue says so.
LIMIT = 10.0
GRACE = ("--graceful-timeout", "20")


@pytest.fixture(scope="module")
def shared(counted: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    directory, settings = tmp_path_factory.mktemp("shared"), {"SSEFLASK_HEARTBEAT": "0.5"}
    with stage_service(directory, counted, *GRACE, settings=settings) as server:
        yield Stage(server, counted)


@pytest.fixture
def stage(shared: Stage) -> Stage:
    """A service with two workers, whatever an earlier test has done to others."""
    until(lambda: len(listening(shared.server)) == len(shared.server.workers()) == 2, "two workers")
    settled(shared.upstream.destroyed, "the upstream has noticed what was killed", pause=0.1)
    return shared


def listening(server: Server) -> list[psutil.Process]:
    """The workers that take connections: they neither drain nor wait to be buried."""
    return owners(server.workers(), inode(server.port, 0))


class Viewer:
    """Reads a run to its end in a thread, and notes when it was told of the end."""

    def __init__(self, stream: Stream, form: str) -> None:
        self.form = form
        self.events: list[Sent] = []
        self.ended_at = 0.0
        self._stream = stream
        self._problem: BaseException | None = None
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        try:
            for event in self._stream:
                self.events.append(event)
            self.ended_at = time.monotonic()
        except (AssertionError, OSError) as problem:
            self._problem = problem

    def told(self) -> Told:
        self._thread.join(30)
        assert not self._thread.is_alive(), f"it still waits, after {self.events[-2:]}"
        assert self._problem is None, f"cut short: {self._problem!r}"
        return Told(self.events, self.form)


def assert_interrupted(told: Told, upstream: Upstream) -> None:
    """The text so far, then one failure."""
    assert told.outcome == "failed"
    assert (upstream.story * 20).startswith(told.text)
    assert told.text
    if told.form == "ui":
        assert told.error
    else:
        assert told.error["code"] == "interrupted"
        assert told.error["type"] == "server_error"


def test_the_writer_is_killed(stage: Stage, tag: str) -> None:
    """Viewers on the other worker keep their connection; the rest come back to read it."""
    message = f"slow story #{tag}"
    with contextlib.ExitStack() as stack:
        key = {"idempotency_key": f"key-{tag}"}
        starter = stack.enter_context(start(stage.server, message, format="text", **key))
        run = run_of(starter)
        take(starter, 3)
        writing = writer(stage.server, starter)
        reading = other(stage.server, writing)
        viewers = [
            Viewer(stack.enter_context(attach_at(stage.server, reading, run, form)), form)
            for form in (*FORMATS, *FORMATS)
        ]
        until(lambda: all(len(viewer.events) > 10 for viewer in viewers), "all of them read")
        destroyed = stage.upstream.destroyed()
        killed_at = time.monotonic()
        writing.kill()
        told = [viewer.told() for viewer in viewers]
    for viewer, each in zip(viewers, told, strict=True):
        assert viewer.ended_at - killed_at < LIMIT
        assert_interrupted(each, stage.upstream)
    for form, first, second in zip(FORMATS, told, told[len(FORMATS) :], strict=False):
        assert first.events == second.events
        for _ in range(3):  # by whichever worker
            assert ended(stage.server, run, form).events == first.events
    stage.upstream.wait_for_destroyed(destroyed + 1)
    assert stage.upstream.asked_for(message) == 1
    stopped = fetch(stage.server, f"/runs/{run}", method="DELETE")
    assert json.loads(stopped.body) == {"id": run, "status": "failed"}
    assert_replayed(stage, run, message, f"key-{tag}")


def assert_replayed(stage: Stage, run: str, message: str, key: str) -> None:
    """A repeated request gets its run, also one that was interrupted; no new one is begun."""
    body = json.dumps({"user_message": message, "format": "text"}).encode()
    headers = {"Content-Type": "application/json", "Idempotency-Key": key}
    again = fetch(stage.server, "/sse/openai_out", method="POST", headers=headers, body=body)
    assert again.status == 200
    assert again.headers["x-run-id"] == run
    assert again.headers["idempotency-replayed"] == "true"
    assert b'"interrupted"' in again.body
    assert stage.upstream.asked_for(message) == 1


def test_the_writer_is_killed_before_the_first_token(stage: Stage, tag: str) -> None:
    message = f"late #{tag}"
    with contextlib.ExitStack() as stack:
        starter = stack.enter_context(start(stage.server, message))
        run = run_of(starter)
        writing = writer(stage.server, starter)
        reading = other(stage.server, writing)
        viewer = Viewer(stack.enter_context(attach_at(stage.server, reading, run)), "text")
        killed_at = time.monotonic()
        writing.kill()
        told = viewer.told()
    assert viewer.ended_at - killed_at < LIMIT
    assert (told.text, told.outcome) == ("", "failed")
    assert told.error["code"] == "interrupted"
    assert stage.upstream.asked_for(message) == 1


def test_nobody_reads_while_the_writer_is_killed(stage: Stage, tag: str) -> None:
    """Runs of a killed worker are ended, although nobody asks: the next one does not wait."""
    with start(stage.server, f"slow story #{tag}", on_disconnect="continue") as stream:
        run = run_of(stream)
        take(stream, 3)
        writing = writer(stage.server, stream)
    killed_at = time.monotonic()
    writing.kill()

    def logged() -> list[str]:
        lines = stage.server.log().splitlines()
        return [line for line in lines if run in line and re.search("interrupted|failed", line)]

    until(logged, "the end of the run in the log, as nobody asks", seconds=LIMIT)
    assert time.monotonic() - killed_at < LIMIT
    asked_at = time.monotonic()
    assert_interrupted(ended(stage.server, run), stage.upstream)
    assert time.monotonic() - asked_at < 5, "there is nothing to wait for"


def test_the_writer_is_paused(stage: Stage, tag: str) -> None:
    """Another worker ends the run; when it goes on it writes no more, and cancels its upstream."""
    message = f"slow story #{tag}"
    destroyed = stage.upstream.destroyed()
    with contextlib.ExitStack() as stack:
        starter = stack.enter_context(start(stage.server, message, format="text"))
        run = run_of(starter)
        before = take(starter, 3)
        writing = writer(stage.server, starter)
        reading = other(stage.server, writing)
        viewer = Viewer(stack.enter_context(attach_at(stage.server, reading, run)), "text")
        until(lambda: len(viewer.events) > 10, "the viewer reads")
        paused_at = time.monotonic()
        writing.suspend()
        try:
            told = viewer.told()
            assert viewer.ended_at - paused_at < LIMIT
            assert_interrupted(told, stage.upstream)
            with attach_at(stage.server, reading, run) as stream:
                assert read(stream, "text").events == told.events
            assert stage.upstream.destroyed() == destroyed, "its connection is still open"
        finally:
            writing.resume()
        # Its upstream has said much meanwhile: all that waits in its socket.
        stage.upstream.wait_for_destroyed(destroyed + 1)
        first = read(starter, "text", before)
    assert writing.is_running()
    assert first.events == told.events, "also for those who read from the worker that was paused"
    for worker in (writing, reading):
        with attach_at(stage.server, worker, run) as stream:
            assert read(stream, "text").events == told.events
    assert stage.upstream.asked_for(message) == 1
    # It is of use again.
    with connect_to(stage.server, writing) as connection:
        connection.request(path(f"story #{tag}", format="text"), method="POST")
        with Stream(connection) as stream:
            assert read(stream, "text").text == stage.upstream.story


def test_the_writer_is_paused_for_a_moment(stage: Stage, tag: str) -> None:
    """Less than the limit: nothing has happened."""
    message = f"steady story #{tag}"
    with start(stage.server, message, format="text") as stream:
        before = take(stream, 3)
        writing = writer(stage.server, stream)
        writing.suspend()
        time.sleep(2)  # what is waited for is that nothing happens
        writing.resume()
        told = read(stream, "text", before)
    assert (told.text, told.outcome) == (stage.upstream.story * 8, "finished")
    assert stage.upstream.asked_for(message) == 1


@pytest.mark.parametrize("message", ["slow story", "late"])
@pytest.mark.parametrize("by", ["the writer", "the other worker"])
def test_stop_is_served_by_any_worker(stage: Stage, tag: str, message: str, by: str) -> None:
    """Also before the first token; again by the other one, which answers the same."""
    destroyed = stage.upstream.destroyed()
    with start(stage.server, f"{message} #{tag}", format="text") as stream:
        run = run_of(stream)
        before = take(stream, 3) if message == "slow story" else []
        writing = writer(stage.server, stream)
        first, second = writing, other(stage.server, writing)
        if by != "the writer":
            first, second = second, first
        for worker in (first, second, first):
            assert stop_at(stage, worker, run) == {"id": run, "status": "stopped"}
        told = read(stream, "text", before)
    assert told.outcome == "stopped"
    assert bool(told.text) == (message == "slow story")
    stage.upstream.wait_for_destroyed(destroyed + 1)
    for worker in (first, second):
        with attach_at(stage.server, worker, run) as again:
            assert read(again, "text").events == told.events


def stop_at(stage: Stage, worker: psutil.Process, run: str) -> dict[str, Any]:
    with connect_to(stage.server, worker) as connection:
        connection.request(f"/runs/{run}", method="DELETE")
        head = connection.head()
        assert head.status == 200
        said: dict[str, Any] = json.loads(connection.body(head))
        return said


def test_the_last_viewer_leaves_the_other_worker(stage: Stage, tag: str) -> None:
    """The writer's own viewer has left before: it is the last one that counts, wherever it is."""
    destroyed = stage.upstream.destroyed()
    with contextlib.ExitStack() as stack:
        with start(stage.server, f"slow story #{tag}", on_disconnect="cancel") as starter:
            run = run_of(starter)
            take(starter, 1, "chunks")
            reading = other(stage.server, writer(stage.server, starter))
            viewer = stack.enter_context(attach_at(stage.server, reading, run))
            take(viewer, 1)
        take(viewer, 20)
        assert stage.upstream.destroyed() == destroyed
    stage.upstream.wait_for_destroyed(destroyed + 1)
    assert ended(stage.server, run).outcome == "cancelled"


def test_resuming_at_another_worker(stage: Stage, tag: str) -> None:
    """While it goes on, and afterwards: exactly the rest, then 204."""
    message = f"paced story #{tag}"
    with start(stage.server, message, format="text") as stream:
        run = run_of(stream)
        before = take(stream, 5)
        writing = writer(stage.server, stream)
        last = next(event.id for event in reversed(before) if event.id)
        with connect_to(stage.server, other(stage.server, writing)) as connection:
            connection.request(path(message, format="text"), headers={"Last-Event-ID": last})
            with Stream(connection) as resumed:
                assert run_of(resumed) == run
                told = read(resumed, "text", before)
        assert read(stream, "text", before).events == told.events
    assert told.text == stage.upstream.story * 4
    for worker in stage.server.workers():
        with connect_to(stage.server, worker) as connection:
            connection.request(path(message), headers={"Last-Event-ID": told.events[-1].id or ""})
            assert connection.head().status == 204
    assert stage.upstream.asked_for(message) == 1


@contextlib.contextmanager
def told_to_end(stage: Stage, message: str, number: int) -> Iterator[tuple[str, list[Sent]]]:
    """A run whose workers get this signal: its id, and what one has who was sent away.

    When the block is left, one who can't resume has read the run to its end.
    """
    complete = stage.upstream.story * 8
    with (
        start(stage.server, message, format="ui") as stays,
        attach(stage.server, run_of(stays), "text") as leaves,
    ):
        before = [*take(stays, 3, "ui")]
        seen = take(leaves, 3)
        stage.server.send_signal(number)
        seen += leaves.rest()
        assert leaves.retries, "it is told when to come back"
        partial = Told(seen, "text")
        assert not partial.outcome
        assert partial.text != complete
        yield run_of(stays), seen
        whole = read(stays, "ui", before)
    assert (whole.text, whole.outcome) == (complete, "finished")
    assert stage.upstream.asked_for(message) == 1


def test_sighup(stage: Stage, tag: str) -> None:
    """The run goes on; who can't resume stays to its end, who can is sent away at once."""
    old = stage.server.workers()
    with told_to_end(stage, f"steady story #{tag}", signal.SIGHUP) as (run, seen):
        # The old ones may not have been told yet; they would send it away once more.
        new = until(lambda: set(stage.server.workers()) - set(old), "there are others").pop()
        last = next(event.id for event in reversed(seen) if event.id)
        headers = {"Last-Event-ID": last}
        with attach_at(stage.server, new, run, "text", headers) as back:
            told = read(back, "text", seen)
        assert (told.text, told.outcome) == (stage.upstream.story * 8, "finished")


def test_sigterm(counted: Upstream, tmp_path: Path, tag: str) -> None:
    """The same, and then the service has ended."""
    with stage_service(tmp_path, counted, *GRACE, workers=1) as server:
        with told_to_end(Stage(server, counted), f"steady story #{tag}", signal.SIGTERM):
            pass
        assert server.wait_until_ended() == 0


@pytest.mark.parametrize("on_disconnect", ["cancel", "30"])
def test_one_worker_of_two_is_told_to_end(stage: Stage, tag: str, on_disconnect: str) -> None:
    """Who is sent away has not left: it comes back to the other one, and finds all of the rest."""
    message = f"steady story #{tag}"
    with start(stage.server, message, format="text", on_disconnect=on_disconnect) as stream:
        run, seen = run_of(stream), take(stream, 3)
        writing = writer(stage.server, stream)
        staying = other(stage.server, writing)
        writing.send_signal(signal.SIGTERM)
        seen += stream.rest()
        assert stream.retries, "it is told when to come back"
    last = next(event.id for event in reversed(seen) if event.id)
    with attach_at(stage.server, staying, run, "text", headers={"Last-Event-ID": last}) as back:
        told = read(back, "text", seen)
    assert (told.text, told.outcome) == (stage.upstream.story * 8, "finished")
    assert stage.upstream.asked_for(message) == 1


def test_the_grace_time_is_over(counted: Upstream, tmp_path: Path, tag: str) -> None:
    """A run that takes longer is ended in order, and can be read afterwards."""
    destroyed = counted.destroyed()
    with (
        stage_service(tmp_path, counted, "--graceful-timeout", "8", workers=1) as server,
        start(server, f"slow story #{tag}", format="ui") as stays,
    ):
        run = run_of(stays)
        before = take(stays, 3, "ui")
        server.send_signal(signal.SIGHUP)
        told = read(stays, "ui", before)
        assert_interrupted(told, counted)
        assert told.pieces > 20, "it went on for a while"
        counted.wait_for_destroyed(destroyed + 1)
        again = ended(server, run)
    assert_interrupted(again, counted)
    assert again.text == told.text
    assert counted.asked_for(f"slow story #{tag}") == 1
