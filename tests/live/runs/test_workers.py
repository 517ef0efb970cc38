"""The worker that writes a run is killed, paused and replaced; others read, stop and end it."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.live.kit.aimock import Aimock
from tests.live.kit.clients import Stream, open_stream
from tests.live.kit.connection import fetch
from tests.live.kit.ends import EndReader
from tests.live.kit.events import Sent
from tests.live.kit.run_events import FORMATS, Decoded, last_id
from tests.live.kit.runs import attach, read, read_run, run_of, run_service, start, start_path, take
from tests.live.kit.servers import Server
from tests.live.kit.stores import Store, on_every_store
from tests.live.kit.waiting import settled, until
from tests.live.kit.workers import (
    connect_to,
    listening,
    other_worker,
    suspended,
    wait_for_workers,
    worker_of,
)

#: Within this time a run whose worker has died is ended by another one: the issue says so.
LIMIT = 10.0
GRACE = ("--graceful-timeout", "20")

pytestmark = [on_every_store, pytest.mark.waits_long]


@pytest.fixture(scope="module")
def shared(
    upstream: Aimock, tmp_path_factory: pytest.TempPathFactory, store: Store
) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("shared")
    with run_service(directory, upstream, *GRACE, settings=store(directory)) as server:
        yield server


@pytest.fixture
def relay(shared: Server, upstream: Aimock) -> Server:
    """A service with two workers, whatever an earlier test has done to others."""
    until(lambda: len(listening(shared)) == len(shared.workers()) == 2, "two workers")
    settled(upstream.destroyed, "the upstream has noticed what was killed", pause=0.3)
    return shared


class Viewer(EndReader):
    """Reads a run to its end in a thread, and notes when it got the end."""

    def __init__(self, stream: Stream, format: str) -> None:
        super().__init__(stream)
        self.format = format

    def answer(self) -> Decoded:
        return Decoded(self.format, self.all())


def assert_interrupted(answer: Decoded, upstream: Aimock) -> None:
    """The text so far, then one failure."""
    assert answer.outcome == "failed"
    assert (upstream.story * 20).startswith(answer.text)
    assert answer.text
    if answer.format == "ui":
        assert answer.error
    else:
        assert answer.error["code"] == "interrupted"
        assert answer.error["type"] == "server_error"


def test_the_writer_is_killed(relay: Server, upstream: Aimock, tag: str) -> None:
    """Viewers on the other worker keep their connection; the rest come back to read it."""
    message = f"slow story #{tag}"
    with contextlib.ExitStack() as stack:
        key = f"key-{tag}"
        starter = start(relay, message, format="text", idempotency_key=key)
        stack.enter_context(starter)
        run = run_of(starter)
        take(starter, 3)
        writing = worker_of(relay, starter.connection)
        reading = other_worker(relay, writing)
        viewers = [
            Viewer(stack.enter_context(attach(connect_to(relay, reading), run, format)), format)
            for format in (*FORMATS, *FORMATS)
        ]
        until(lambda: all(len(viewer.events) > 10 for viewer in viewers), "all of them read")
        destroyed = upstream.destroyed()
        killed_at = time.monotonic()
        writing.kill()
        answer = [viewer.answer() for viewer in viewers]
    for viewer, each in zip(viewers, answer, strict=True):
        assert viewer.ended_at - killed_at < LIMIT
        assert_interrupted(each, upstream)
    for format, first, second in zip(FORMATS, answer, answer[len(FORMATS) :], strict=False):
        assert first.events == second.events
        for _ in range(3):  # by whichever worker
            assert read_run(relay, run, format).events == first.events
    upstream.wait_for_destroyed(destroyed + 1)
    assert upstream.asked_for(message) == 1
    stopped = fetch(relay, f"/runs/{run}", method="DELETE")
    assert json.loads(stopped.body) == {"id": run, "status": "failed"}
    assert_replayed(relay, upstream, run, message, f"key-{tag}")


def assert_replayed(relay: Server, upstream: Aimock, run: str, message: str, key: str) -> None:
    """A repeated request gets its run, also one that was interrupted; no new one is begun."""
    body = json.dumps({"user_message": message, "format": "text"}).encode()
    headers = {"Content-Type": "application/json", "Idempotency-Key": key}
    again = fetch(relay, "/sse/openai_out", method="POST", headers=headers, body=body)
    assert again.status == 200
    assert again.headers["x-run-id"] == run
    assert again.headers["idempotency-replayed"] == "true"
    assert b'"interrupted"' in again.body
    assert upstream.asked_for(message) == 1


def test_the_writer_is_killed_before_the_first_token(
    relay: Server, upstream: Aimock, tag: str
) -> None:
    message = f"late #{tag}"
    with contextlib.ExitStack() as stack:
        starter = stack.enter_context(start(relay, message))
        run = run_of(starter)
        writing = worker_of(relay, starter.connection)
        reading = other_worker(relay, writing)
        viewer = Viewer(
            stack.enter_context(attach(connect_to(relay, reading), run, "text")), "text"
        )
        killed_at = time.monotonic()
        writing.kill()
        answer = viewer.answer()
    assert viewer.ended_at - killed_at < LIMIT
    assert (answer.text, answer.outcome) == ("", "failed")
    assert answer.error["code"] == "interrupted"
    assert upstream.asked_for(message) == 1


def test_nobody_reads_while_the_writer_is_killed(relay: Server, upstream: Aimock, tag: str) -> None:
    """Runs of a killed worker are ended without a request: a later one does not wait."""
    with start(relay, f"slow story #{tag}", on_disconnect="continue") as stream:
        run = run_of(stream)
        take(stream, 3)
        writing = worker_of(relay, stream.connection)
    killed_at = time.monotonic()
    writing.kill()

    def logged() -> list[str]:
        lines = relay.log().splitlines()
        return [line for line in lines if run in line and re.search("interrupted|failed", line)]

    until(logged, "the end of the run in the log, without a request", seconds=LIMIT)
    assert time.monotonic() - killed_at < LIMIT
    asked_at = time.monotonic()
    assert_interrupted(read_run(relay, run), upstream)
    assert time.monotonic() - asked_at < 5, "there is nothing to wait for"


def test_the_writer_is_paused(relay: Server, upstream: Aimock, tag: str) -> None:
    """Another worker ends the run; when it goes on it writes no more, and cancels its upstream."""
    message = f"slow story #{tag}"
    destroyed = upstream.destroyed()
    with contextlib.ExitStack() as stack:
        starter = stack.enter_context(start(relay, message, format="text"))
        run = run_of(starter)
        before = take(starter, 3)
        writing = worker_of(relay, starter.connection)
        reading = other_worker(relay, writing)
        viewer = Viewer(
            stack.enter_context(attach(connect_to(relay, reading), run, "text")), "text"
        )
        until(lambda: len(viewer.events) > 10, "the viewer reads")
        paused_at = time.monotonic()
        with suspended(writing):
            answer = viewer.answer()
            assert viewer.ended_at - paused_at < LIMIT
            assert_interrupted(answer, upstream)
            with attach(connect_to(relay, reading), run, "text") as stream:
                assert read(stream, "text").events == answer.events
            assert upstream.destroyed() == destroyed, "its connection is still open"
        # Its upstream has said much meanwhile: all that waits in its socket.
        upstream.wait_for_destroyed(destroyed + 1)
        first = read(starter, "text", before)
    assert writing.is_running()
    assert first.events == answer.events, "also for those who read from the worker that was paused"
    for worker in (writing, reading):
        with attach(connect_to(relay, worker), run, "text") as stream:
            assert read(stream, "text").events == answer.events
    assert upstream.asked_for(message) == 1
    # It is of use again.
    with connect_to(relay, writing) as connection:
        connection.request(start_path(f"story #{tag}", format="text"), method="POST")
        with Stream(connection) as stream:
            assert read(stream, "text").text == upstream.story


def test_the_writer_is_paused_for_a_moment(relay: Server, upstream: Aimock, tag: str) -> None:
    """Less than the limit: nothing has happened."""
    message = f"steady story #{tag}"
    with start(relay, message, format="text") as stream:
        before = take(stream, 3)
        writing = worker_of(relay, stream.connection)
        with suspended(writing):
            time.sleep(2)  # what is waited for is that nothing happens
        answer = read(stream, "text", before)
    assert (answer.text, answer.outcome) == (upstream.story * 8, "finished")
    assert upstream.asked_for(message) == 1


@pytest.mark.parametrize("message", ["slow story", "late"])
@pytest.mark.parametrize("by", ["the writer", "the other worker"])
def test_stop_is_served_by_any_worker(
    relay: Server, upstream: Aimock, tag: str, message: str, by: str
) -> None:
    """Even before the first token. The other worker answers the same again."""
    destroyed = upstream.destroyed()
    with start(relay, f"{message} #{tag}", format="text") as stream:
        run = run_of(stream)
        before = take(stream, 3) if message == "slow story" else []
        writing = worker_of(relay, stream.connection)
        first, second = writing, other_worker(relay, writing)
        if by != "the writer":
            first, second = second, first
        for worker in (first, second, first):
            assert stop_at(relay, worker, run) == {"id": run, "status": "stopped"}
        answer = read(stream, "text", before)
    assert answer.outcome == "stopped"
    assert bool(answer.text) == (message == "slow story")
    upstream.wait_for_destroyed(destroyed + 1)
    for worker in (first, second):
        with attach(connect_to(relay, worker), run, "text") as again:
            assert read(again, "text").events == answer.events


def stop_at(relay: Server, worker: psutil.Process, run: str) -> dict[str, Any]:
    with connect_to(relay, worker) as connection:
        connection.request(f"/runs/{run}", method="DELETE")
        head = connection.head()
        assert head.status == 200
        said: dict[str, Any] = json.loads(connection.body(head))
        return said


def test_the_last_viewer_leaves_the_other_worker(relay: Server, upstream: Aimock, tag: str) -> None:
    """The writer's own viewer has left before: it is the last one that counts, wherever it is."""
    destroyed = upstream.destroyed()
    with contextlib.ExitStack() as stack:
        with start(relay, f"slow story #{tag}", on_disconnect="cancel") as starter:
            run = run_of(starter)
            take(starter, 1, "chunks")
            reading = other_worker(relay, worker_of(relay, starter.connection))
            viewer = stack.enter_context(attach(connect_to(relay, reading), run, "text"))
            take(viewer, 1)
        take(viewer, 20)
        assert upstream.destroyed() == destroyed
    upstream.wait_for_destroyed(destroyed + 1)
    assert read_run(relay, run).outcome == "cancelled"


def test_resuming_at_another_worker(relay: Server, upstream: Aimock, tag: str) -> None:
    """While it goes on, and afterwards: exactly the rest, then 204."""
    message = f"paced story #{tag}"
    with start(relay, message, format="text") as stream:
        run = run_of(stream)
        before = take(stream, 5)
        writing = worker_of(relay, stream.connection)
        last = last_id(before)
        with connect_to(relay, other_worker(relay, writing)) as connection:
            connection.request(start_path(message, format="text"), headers={"Last-Event-ID": last})
            with Stream(connection) as resumed:
                assert run_of(resumed) == run
                answer = read(resumed, "text", before)
        assert read(stream, "text", before).events == answer.events
    assert answer.text == upstream.story * 4
    for worker in relay.workers():
        with connect_to(relay, worker) as connection:
            connection.request(
                start_path(message), headers={"Last-Event-ID": answer.events[-1].id or ""}
            )
            assert connection.head().status == 204
    assert upstream.asked_for(message) == 1


@contextlib.contextmanager
def asked_to_end(
    relay: Server, upstream: Aimock, message: str, number: int
) -> Iterator[tuple[str, list[Sent]]]:
    """A run whose workers get this signal: its id, and what a client has that must reconnect.

    When the block is left, a client that can't resume has read the run to its end.
    """
    complete = upstream.story * 8
    with (
        start(relay, message, format="ui") as stays,
        attach(relay, run_of(stays), "text") as leaves,
    ):
        before = [*take(stays, 3, "ui")]
        seen = take(leaves, 3)
        relay.send_signal(number)
        seen += leaves.rest()
        assert leaves.retries, "it has a retry line"
        partial = Decoded("text", seen)
        assert not partial.outcome
        assert partial.text != complete
        yield run_of(stays), seen
        whole = read(stays, "ui", before)
    assert (whole.text, whole.outcome) == (complete, "finished")
    assert upstream.asked_for(message) == 1


def test_sighup(relay: Server, upstream: Aimock, tag: str) -> None:
    """The run goes on. Clients that can't resume stay to its end; the others reconnect."""
    old = relay.workers()
    with asked_to_end(relay, upstream, f"steady story #{tag}", signal.SIGHUP) as (run, seen):
        # The old ones may not have the signal yet; they would end its stream once more.
        new = until(lambda: set(relay.workers()) - set(old), "there are others").pop()
        last = last_id(seen)
        with attach(connect_to(relay, new), run, "text", last) as back:
            answer = read(back, "text", seen)
        assert (answer.text, answer.outcome) == (upstream.story * 8, "finished")


def test_sigterm(upstream: Aimock, tmp_path: Path, store: Store, tag: str) -> None:
    """The same, and then the service has ended."""
    settings = store(tmp_path)
    with run_service(tmp_path, upstream, *GRACE, workers=1, settings=settings) as server:
        with asked_to_end(server, upstream, f"steady story #{tag}", signal.SIGTERM):
            pass
        assert server.wait_until_ended() == 0


@pytest.mark.parametrize("on_disconnect", ["cancel", "30"])
def test_one_worker_of_two_is_asked_to_end(
    relay: Server, upstream: Aimock, tag: str, on_disconnect: str
) -> None:
    """A client that is told to reconnect has not left: the other worker gives it the rest."""
    message = f"steady story #{tag}"
    with start(relay, message, format="text", on_disconnect=on_disconnect) as stream:
        run, seen = run_of(stream), take(stream, 3)
        writing = worker_of(relay, stream.connection)
        staying = other_worker(relay, writing)
        writing.send_signal(signal.SIGTERM)
        seen += stream.rest()
        assert stream.retries, "it has a retry line"
    last = last_id(seen)
    with attach(connect_to(relay, staying), run, "text", last) as back:
        answer = read(back, "text", seen)
    assert (answer.text, answer.outcome) == (upstream.story * 8, "finished")
    assert upstream.asked_for(message) == 1


@pytest.mark.parametrize("how", ["SIGTERM", "Ctrl-C"])
def test_a_worker_ends_whose_viewers_read_a_run_of_another(
    upstream: Aimock, tmp_path: Path, store: Store, tag: str, how: str
) -> None:
    """One that can't resume is told so in band, and its response ends properly."""
    message = f"slow story #{tag}"
    body = json.dumps(
        {"model": "m", "stream": True, "messages": [{"role": "user", "content": message}]}
    ).encode()
    headers = {"Content-Type": "application/json", "Idempotency-Key": f"key-{tag}"}
    path = "/v1/chat/completions"
    grace = ("--graceful-timeout", "5")
    with (
        run_service(tmp_path, upstream, *grace, settings=store(tmp_path)) as server,
        contextlib.ExitStack() as stack,
    ):
        wait_for_workers(server, 2)
        starter = stack.enter_context(
            open_stream(server, path, method="POST", headers=headers, body=body)
        )
        run = run_of(starter)
        take(starter, 3, "chunks")
        writing = worker_of(server, starter.connection)
        reading = other_worker(server, writing)
        ui = stack.enter_context(attach(connect_to(server, reading), run, "ui"))
        replayed = stack.enter_context(
            open_stream(
                connect_to(server, reading), path, method="POST", headers=headers, body=body
            )
        )
        assert run_of(replayed) == run
        viewers = {"ui": Viewer(ui, "ui"), "chunks": Viewer(replayed, "chunks")}
        until(lambda: all(len(each.events) > 10 for each in viewers.values()), "they read")
        told_at = time.monotonic()
        reading.send_signal(signal.SIGTERM if how == "SIGTERM" else signal.SIGQUIT)
        for format, viewer in viewers.items():
            answer = viewer.answer()
            assert answer.outcome == "failed"
            assert answer.pieces > 5
            if format == "chunks":
                assert answer.error["code"] == "shutting_down"
            if how == "SIGTERM":
                assert viewer.ended_at - told_at > 2, "it went on for a while"
        take(starter, 3, "chunks")
        until(lambda: not reading.is_running(), "the worker has ended", seconds=20)
        assert stop_at(server, writing, run)["status"] == "stopped"


def test_the_grace_time_is_over(upstream: Aimock, tmp_path: Path, store: Store, tag: str) -> None:
    """A run that takes longer is ended in order, and can be read afterwards."""
    destroyed = upstream.destroyed()
    grace, settings = ("--graceful-timeout", "8"), store(tmp_path)
    with (
        run_service(tmp_path, upstream, *grace, workers=1, settings=settings) as server,
        start(server, f"slow story #{tag}", format="ui") as stays,
    ):
        run = run_of(stays)
        before = take(stays, 3, "ui")
        server.send_signal(signal.SIGHUP)
        answer = read(stays, "ui", before)
        assert_interrupted(answer, upstream)
        assert answer.pieces > 20, "it went on for a while"
        upstream.wait_for_destroyed(destroyed + 1)
        again = read_run(server, run)
    assert_interrupted(again, upstream)
    assert again.text == answer.text
    assert upstream.asked_for(f"slow story #{tag}") == 1
