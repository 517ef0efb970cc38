"""The store's file is locked, full or read-only: publishers get 503, subscribers stay."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.live.kit.connection import Answer, fetch
from tests.live.kit.publishing import error_of, post, publish
from tests.live.kit.servers import Server
from tests.live.kit.services import service
from tests.live.kit.subscribers import Subscriber
from tests.live.kit.swarm import Swarm
from tests.live.kit.tools import tool
from tests.live.kit.waiting import until

QUICK = {"SSEFLASK_HEARTBEAT": "0.1"}
#: Large enough for a small disk to be full soon.
FILLING = "x" * 20_000

LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=10)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
connection.execute("ROLLBACK")
"""


@contextlib.contextmanager
def write_lock(file: Path) -> Iterator[None]:
    """Another process holds the database's write lock."""
    command = [sys.executable, "-c", LOCK, str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"locked\n"
            yield
            assert process.poll() is None, "it was locked all the while"
        finally:
            process.communicate(timeout=20)


@pytest.fixture(scope="module", params=[1, 2], ids=["1 worker", "2 workers"])
def stored(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A service with its store in its directory; each test undoes what it does to the file."""
    directory = tmp_path_factory.mktemp("stored")
    with service(directory, workers=request.param, settings=QUICK) as server:
        yield server


def test_another_process_holds_the_write_lock(stored: Server, channel: str) -> None:
    """For a second: heartbeats and /healthz go on, publishing waits, and is not lost."""
    server = stored
    subscribers = [Subscriber(f"/channels/{channel}") for _ in range(50)]
    with Swarm(server.port, subscribers) as swarm:
        swarm.wait_until_connected()
        publish(server, channel, "before")
        swarm.wait_for(lambda each: each.data() == ["before"], "has the first event")
        answers: list[Answer] = []

        def publish_while_locked(n: int) -> None:
            answers.append(post(server, channel, b'{"data": "meanwhile %d"}' % n))

        publishing = [threading.Thread(target=publish_while_locked, args=(n,)) for n in range(3)]
        with write_lock(server.directory / "channels.sqlite"):
            begun = time.monotonic()
            for thread in publishing:
                thread.start()
            beats = {id(each): each.comments for each in swarm.subscribers}
            asked = 0
            while time.monotonic() < begun + 1 or asked < 20:
                assert fetch(server, "/healthz").status == 200
                asked += 1
            # 10 heartbeats a second are due; they were not all kept for the lock's end.
            swarm.wait_for(lambda each: each.comments >= beats[id(each)] + 5, "heartbeats go on")
            assert not answers, "no process can have written"
        for thread in publishing:
            thread.join(30)
        assert [answer.status for answer in answers] == [201] * 3
        swarm.wait_for(lambda each: len(each.events) == 4, "has what was published meanwhile")
        ids = {json.loads(answer.body)["id"] for answer in answers}
        for subscriber in swarm.subscribers:
            assert {event.id for event in subscriber.events[1:]} == ids
            assert (subscriber.connected, subscriber.gaps) == (1, [])


def fill(server: Server, channel: str, taken: list[str]) -> Answer:
    """Publish until it is refused; the refusal."""
    for _ in range(2000):
        data = f"{len(taken)} {FILLING}"
        answer = post(server, channel, json.dumps({"data": data}).encode())
        if answer.status != 201:
            return answer
        taken.append(data)
    raise AssertionError(f"{len(taken)} events were taken")


def assert_trouble_and_recovery(
    server: Server, channel: str, trouble: Callable[[], None], recover: Callable[[], None]
) -> None:
    """Publishers get 503 while there is trouble; subscribers stay and get what was taken."""
    with Swarm(server.port, [Subscriber(f"/channels/{channel}") for _ in range(20)]) as swarm:
        swarm.wait_until_connected()
        taken = survived(server, channel, swarm, trouble, recover)
        swarm.wait_for(lambda each: each.data()[-1:] == ["last"], "has the last event")
        for subscriber in swarm.subscribers:
            assert [data[:20] for data in subscriber.data()] == [data[:20] for data in taken]
            assert subscriber.data() == taken, "exactly what was taken"
            assert (subscriber.connected, subscriber.truncated, subscriber.gaps) == (1, 0, [])
    path = f"/channels/{channel}?last_event_id=earliest"
    with Swarm(server.port, [Subscriber(path)]) as later:
        later.wait_for(lambda each: each.data() == taken, "the store has what was taken")


def survived(
    server: Server,
    channel: str,
    swarm: Swarm,
    trouble: Callable[[], None],
    recover: Callable[[], None],
) -> list[str]:
    """What was taken before the trouble and after the recovery."""
    taken: list[str] = ["before"]
    publish(server, channel, "before")
    trouble()
    refusal = fill(server, channel, taken)
    error_of(refusal, 503)
    assert int(refusal.headers["retry-after"]) >= 0
    beats = {id(each): each.comments for each in swarm.subscribers}
    swarm.wait_for(lambda each: each.comments >= beats[id(each)] + 3, "stays, with heartbeats")
    for _ in range(3):
        error_of(post(server, channel, json.dumps({"data": FILLING}).encode()), 503)
        assert fetch(server, "/healthz").status == 200
    recover()

    def published() -> bool:
        answer = post(server, channel, b'{"data": "after"}')
        assert answer.status in (201, 503), answer.body
        return answer.status == 201

    until(published, "publishing goes on", pause=0.1)
    taken.append("after")
    publish(server, channel, "last")
    taken.append("last")
    return taken


def small_disk(directory: Path, size: str) -> None:
    """Mount a disk that is soon full."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    directory.mkdir()
    command = [tool("mount"), "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"can't mount here: {done.stderr.strip()}")


def remount(directory: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(directory)], check=True, timeout=20)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A directory on a disk of its own, of 2 MB."""
    directory = tmp_path / "disk"
    small_disk(directory, "2m")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True, timeout=20)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk(tmp_path: Path, disk: Path, channel: str, workers: int) -> None:
    settings = {**QUICK, "SSEFLASK_CHANNEL_LOG": str(disk / "channels.sqlite")}
    with service(tmp_path, workers=workers, settings=settings) as server:
        assert_trouble_and_recovery(
            server, channel, lambda: None, lambda: remount(disk, "size=200m")
        )


def test_a_file_that_can_not_grow(stored: Server, channel: str) -> None:
    """The operating system refuses further writes, for a while; this needs no root."""

    def limit(bytes_allowed: int) -> None:
        for worker in stored.workers():
            _, hard = worker.rlimit(psutil.RLIMIT_FSIZE)
            worker.rlimit(psutil.RLIMIT_FSIZE, (bytes_allowed, hard))

    assert_trouble_and_recovery(
        stored, channel, lambda: limit(1_000_000), lambda: limit(resource.RLIM_INFINITY)
    )


def test_a_disk_that_is_read_only_when_the_service_starts(tmp_path: Path, disk: Path) -> None:
    """What can be served is; publishing goes on once the disk can be written."""
    settings = {**QUICK, "SSEFLASK_CHANNEL_LOG": str(disk / "channels.sqlite")}
    with service(tmp_path / "first", settings=settings) as server:
        publish(server, "a", "before")
    remount(disk, "ro")
    with service(tmp_path / "second", settings=settings) as server:
        refusal = post(server, "a", b'{"data": "refused"}')
        error_of(refusal, 503)
        assert int(refusal.headers["retry-after"]) >= 0
        assert fetch(server, "/healthz").status == 200
        remount(disk, "rw")
        until(
            lambda: post(server, "a", b'{"data": "after"}').status == 201,
            "publishing goes on",
            pause=0.1,
        )
        with Swarm(server.port, [Subscriber("/channels/a?last_event_id=earliest")]) as swarm:
            swarm.wait_for(lambda each: each.data() == ["before", "after"], "the store is intact")


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    """It is never overwritten; publishers get an error, or the service does not start."""
    file = tmp_path / "channels.sqlite"
    file.write_bytes(b"somebody's letters" * 1000)
    with contextlib.suppress(AssertionError), service(tmp_path) as server:
        error_of(post(server, "a", b'{"data": "refused"}'), 503)
        assert fetch(server, "/healthz").status == 200
    assert file.read_bytes() == b"somebody's letters" * 1000
