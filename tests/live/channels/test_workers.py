"""Workers that are killed, replaced and stopped while hundreds listen and others publish."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests.live.kit.clients import curl_in_background
from tests.live.kit.publishing import Publisher, publish
from tests.live.kit.servers import Server, environment, free_port
from tests.live.kit.services import service
from tests.live.kit.stores import Store, on_every_store
from tests.live.kit.subscribers import Received, Subscriber
from tests.live.kit.swarm import Swarm
from tests.live.kit.waiting import until
from tests.live.kit.workers import suspended

SETTINGS = {"SSEFLASK_HISTORY_EVENTS": "100000", "SSEFLASK_HEARTBEAT": "1"}

pytestmark = on_every_store


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, store: Store) -> Iterator[Server]:
    """Two workers that are killed and replaced; the publishers' names are the tests' own."""
    directory, grace = tmp_path_factory.mktemp("pair"), ("--graceful-timeout", "10")
    settings = {**SETTINGS, **store(directory)}
    with service(directory, *grace, workers=2, settings=settings) as server:
        yield server


def crowd(count: int) -> list[Subscriber]:
    """Subscribers to one channel in several ways, half of them as an EventSource."""
    paths = ("/channels/live.a", "/channels/live.*", "/channels?c=live.a&c=**")
    return [Subscriber(paths[n % 3], event_source=bool(n % 2)) for n in range(count)]


def wait_until_begun(swarm: Swarm) -> None:
    """From here on each can resume, whatever becomes of its connection."""
    swarm.wait_until_connected()
    swarm.wait_for(lambda each: each.last_id is not None, "it knows where it begins")


def assert_everything_once(swarm: Swarm, publisher: Publisher) -> list[Received]:
    """Each has each event, in order, and once; the events."""
    expected = [Received(event_id, "message", data) for event_id, data in publisher.taken]
    swarm.wait_for(lambda each: each.last_id == expected[-1].id, "has the last event", seconds=60)
    for subscriber in swarm.subscribers:
        assert subscriber.events == expected, subscriber.summary()
        assert not subscriber.gaps, subscriber.summary()
        assert not subscriber.failures, subscriber.summary()
        assert not subscriber.problems, subscriber.summary()
    return expected


def noticed(swarm: Swarm, cut: int) -> bool:
    """Whether this many streams have been truncated in all."""
    return sum(each.truncated for each in swarm.subscribers) >= cut


def ended(workers: list[psutil.Process]) -> bool:
    return not any(worker.is_running() for worker in workers)


def moved(times: int, subscriber: Subscriber) -> bool:
    """Whether it was told to reconnect this often, and is connected again."""
    return times <= subscriber.proper_ends < subscriber.connected


def kill(server: Server, worker: psutil.Process) -> None:
    """Send SIGKILL, and wait until another worker has replaced it."""
    others = len(server.workers()) - 1
    worker.kill()
    until(
        lambda: (
            worker not in (now := server.workers())
            and len(now) > others
            and all(each.status() != psutil.STATUS_ZOMBIE for each in now)
        ),
        "another worker in place of the one that was killed",
    )


def test_workers_are_killed(pair: Server) -> None:
    """300 clients, 20 events a second; one worker after the other gets SIGKILL, twice."""
    with Swarm(pair.port, crowd(300)) as swarm:
        wait_until_begun(swarm)
        with Publisher(pair.port, "live.a", "killed", per_second=20) as publisher:
            publisher.wait_for(20)
            cut = 0
            for _ in range(4):
                worker = max(pair.workers(), key=lambda each: len(swarm.served_by(each)))
                had = len(swarm.served_by(worker))
                assert had > 50, "it serves many"
                kill(pair, worker)
                cut += had // 2
                until(partial(noticed, swarm, cut), "its clients have noticed")
                publisher.wait_for(20)
                swarm.wait_for(lambda each: each.connected > each.truncated, "is back")
        assert_everything_once(swarm, publisher)


def test_workers_are_killed_while_they_write(pair: Server) -> None:
    """Arrays as fast as possible: each arrives completely and once, at all subscribers."""
    with Swarm(pair.port, crowd(30)) as swarm:
        wait_until_begun(swarm)
        with Publisher(pair.port, "live.a", "array", batch=100) as publisher:
            for n in range(3):
                publisher.wait_for(1000)
                kill(pair, pair.workers()[n % 2])
            publisher.wait_for(500)
        assert_everything_once(swarm, publisher)


def script(settings: Mapping[str, str], code: str) -> str:
    """What a separate program prints that knows only the store: a cron job, or a task."""
    program = f"""
import os
from flask import Flask
from sseflask import SSE
app = Flask("script")
app.config["SSEFLASK_CHANNEL_LOG"] = os.environ["SSEFLASK_CHANNEL_LOG"]
app.config["SSEFLASK_STORE"] = os.environ.get("REDIS_URL")
sse = SSE(app)
{code}
"""
    return subprocess.run(
        [sys.executable, "-c", program],
        env=environment(**settings),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout


def test_a_script_counts_and_closes_on_all_workers(pair: Server, store: Store) -> None:
    """The same after a worker has just been killed: a dead worker has no subscribers."""
    place = store(pair.directory)
    crowd = [Subscriber(f"/channels/user.{n % 2}", event_source=True) for n in range(60)]
    with Swarm(pair.port, coming_back=False) as swarm:
        victim, other = pair.workers()
        for idle, part in ((other, crowd[:30]), (victim, crowd[30:])):
            with suspended(idle):  # the other one accepts them
                swarm.add(*part)
                wait_until_begun(swarm)
        counts = "print(sse.subscribers('user.*'), sse.subscribers('user.1'))"
        # A worker without an answer within a second, as on a busy machine, is left out.
        until(lambda: script(place, counts) == "60 30\n", "all are counted")
        left = swarm.served_by(other)
        assert left == crowd[30:]
        kill(pair, victim)
        counts = "print(sse.subscribers('user.*'))"
        until(lambda: script(place, counts) == f"{len(left)}\n", "the dead one has none")
        said = script(
            place,
            "print(sse.publish('user.0', 'bye')); sse.close('user.0'); sse.publish('user.0', 1)",
        )
        closed = [each for each in left if each.path.endswith(".0")]
        until(lambda: all(each.proper_ends for each in closed), "the streams have ended")
        for each in closed:
            assert [event.id for event in each.events] == said.split(), each.summary()
            assert [500 <= int(retry) <= 3000 for retry in each.retries] == [True]
            assert not each.truncated, each.summary()
        stay = [each for each in left if each not in closed]
        counts = "print(sse.subscribers())"
        until(lambda: script(place, counts) == f"{len(stay)}\n", "the others are counted")
        publish(pair, "user.1", "still there")
        until(lambda: all(each.events for each in stay), "the others have gone on")


def test_rolling_reload(pair: Server) -> None:
    """SIGHUP, twice: nothing is lost, and no response is truncated."""
    with Swarm(pair.port, crowd(100)) as swarm:
        wait_until_begun(swarm)
        with Publisher(pair.port, "live.a", "reload", per_second=50) as publisher:
            for reload in (1, 2):
                publisher.wait_for(50)
                old = pair.workers()
                pair.send_signal(signal.SIGHUP)
                until(partial(ended, old), "the old workers have ended", seconds=40)
                swarm.wait_for(partial(moved, reload), "ended and resumed")
            publisher.wait_for(50)
        assert_everything_once(swarm, publisher)
        assert sum(each.truncated for each in swarm.subscribers) == 0
        for subscriber in swarm.subscribers:
            pauses = [int(each) for each in subscriber.retries]
            assert len(pauses) >= 2, subscriber.summary()
            assert all(500 <= each <= 3000 for each in pauses), "jittered"


@contextlib.contextmanager
def curls(server: Server, count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """curl, several times."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(
                curl_in_background(server, "/channels/live.a?last_event_id=earliest")
            )
            for _ in range(count)
        ]


def test_sigterm_and_another_release(tmp_path: Path, store: Store) -> None:
    """All streams end properly; clients get what was published before they were back."""
    port, settings = free_port(), {**SETTINGS, **store(tmp_path)}
    with (
        Swarm(port, crowd(100)) as swarm,
        service(tmp_path, port=port, workers=2, settings=settings) as server,
    ):
        wait_until_begun(swarm)
        first = publish(server, "live.a", "first")
        with (
            curls(server, 4) as processes,
            Publisher(port, "live.a", "event", per_second=100) as publisher,
        ):
            begun = [[line_of(process), line_of(process)] for process in processes]
            publisher.wait_for(100)
            server.send_signal(signal.SIGTERM)
            texts = []
            for process, lines in zip(processes, begun, strict=True):
                rest, complaint = process.communicate(timeout=30)
                assert process.returncode == 0, f"curl: {complaint.decode()}"
                texts.append((b"".join(lines) + rest).decode())
            assert server.wait_until_ended() == 0
            swarm.wait_for(lambda each: each.proper_ends >= 1, "ended properly")
            with service(tmp_path / "next", port=port, settings=settings):
                publisher.wait_for(100)
                publisher.stop()
                publisher.taken.insert(0, (first, "first"))
                expected = assert_everything_once(swarm, publisher)
                assert sum(each.truncated for each in swarm.subscribers) == 0
    for text in texts:
        assert_beginning(text, expected)


def line_of(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    return process.stdout.readline()


def assert_beginning(text: str, expected: list[Received]) -> None:
    """What curl has got: the first events, complete, then the `retry` line."""
    *blocks, last = text.split("\n\n")
    events = []
    for block in blocks:
        lines = [line for line in block.split("\n") if not line.startswith((":", "retry:"))]
        fields = dict(line.split(": ", 1) for line in lines)
        if "data" in fields:
            events.append(Received(fields["id"], "message", fields["data"]))
    assert len(events) > 50
    assert events == expected[: len(events)]
    (line,) = [line for line in last.split("\n") if line and not line.startswith(":")]
    assert 500 <= int(line.removeprefix("retry: ")) <= 3000


def test_ctrl_c(tmp_path: Path, store: Store) -> None:
    """As SIGTERM, without the waiting."""
    with (
        service(tmp_path, settings={**SETTINGS, **store(tmp_path)}) as server,
        Swarm(server.port, crowd(20), coming_back=False) as swarm,
    ):
        wait_until_begun(swarm)
        sent = publish(server, "live.a", "last")
        swarm.wait_for(lambda each: each.last_id == sent, "has the event")
        server.interrupt()
        swarm.wait_for(lambda each: each.proper_ends == 1, "ended properly")
        server.wait_until_ended(20)
        assert all(len(each.retries) >= 1 for each in swarm.subscribers)


def test_a_killed_master(tmp_path: Path, store: Store) -> None:
    """No process is left to stop the worker: it notices, and drains by itself."""
    with (
        service(tmp_path, settings={**SETTINGS, **store(tmp_path)}) as server,
        Swarm(server.port, crowd(20), coming_back=False) as swarm,
    ):
        wait_until_begun(swarm)
        server.send_signal(signal.SIGKILL)
        server.wait_until_ended(20)
        swarm.wait_for(lambda each: each.proper_ends == 1, "ended properly")
        until(lambda: not server.members(), "the worker has ended")


def test_max_requests(tmp_path: Path, store: Store) -> None:
    """A worker that reaches `max_requests` ends its subscribers' streams properly as well."""
    options = ("--graceful-timeout", "10", "--max-requests", "40")
    with (
        service(tmp_path, *options, settings={**SETTINGS, **store(tmp_path)}) as server,
        Swarm(server.port, crowd(10)) as swarm,
    ):
        wait_until_begun(swarm)
        with Publisher(server.port, "live.a", "event", per_second=20) as publisher:
            swarm.wait_for(lambda each: each.proper_ends >= 1, "ended properly")
            publisher.wait_for(20)
        assert_everything_once(swarm, publisher)
        assert sum(each.truncated for each in swarm.subscribers) == 0
