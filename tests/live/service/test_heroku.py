"""The service under Heroku's router and dyno manager: their limits, played at a faster pace.

The router is a process of its own (tests/live/kit/router.py) that cuts as the real one does. A dyno
gets SIGTERM, and SIGKILL when its time is over.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from sseflask.config import load
from sseflask.platforms import PLATFORMS
from tests import service
from tests.live.kit.clients import open_stream
from tests.live.kit.connection import fetch
from tests.live.kit.publishing import Publisher, publish
from tests.live.kit.router import Router, router
from tests.live.kit.runs import JSON, bearer
from tests.live.kit.scripted import ScriptedAnswer, ScriptedUpstream
from tests.live.kit.servers import ROOT, Server, free_port
from tests.live.kit.services import SECRET, production_command
from tests.live.kit.stores import Store, on_every_store
from tests.live.kit.waiting import until

#: How much faster time goes: for silence, and for the end of streams. What is left until SIGKILL is
#: as much as in reality: no process ends faster.
FASTER, FASTER_END = 20, 8
HEROKU = next(each for each in PLATFORMS if each.name == "heroku")


@contextlib.contextmanager
def heroku() -> Iterator[Router]:
    """Its router."""
    assert HEROKU.proxy.first_byte
    assert HEROKU.proxy.idle
    with router(HEROKU.proxy.first_byte / FASTER, HEROKU.proxy.idle / FASTER) as running:
        yield running


def profile() -> dict[str, str]:
    """What the profile sets, at this pace."""
    with service.environment(DYNO="web.1"):
        made = load()
    assert made.trusted_proxies == 1
    return {
        "SSEFLASK_HEARTBEAT": str(made.heartbeat / FASTER),
        "SSEFLASK_FIRST_BYTE": str(made.first_byte / FASTER),
        "SSEFLASK_GRACE": str(made.grace // FASTER_END),
    }


def by_honcho(port: int) -> list[str]:
    """The Procfile as it is, by a runner."""
    assert port, "the runner gives it the process by the environment"
    return [sys.executable, "-m", "honcho", "--procfile", str(ROOT / "Procfile"), "start"]


@contextlib.contextmanager
def dyno(
    name: str,
    directory: Path,
    store: Store,
    upstream: ScriptedUpstream,
    how: Callable[[int], list[str]] = production_command,
) -> Iterator[Server]:
    """The Procfile's process, with what the platform sets; it is gone after the block."""
    port = free_port()
    changes = {
        **store(directory),
        **profile(),
        **upstream.settings(),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PORT": str(port),
        "DYNO": name,
        "SSEFLASK_SECRET": SECRET,
        "SSEFLASK_PUBLIC_CHANNELS": "numbers,silence",
    }
    own = directory / name
    server = Server("gunicorn-dyno", how(port), port, own, changes)
    try:
        server.wait_until_ready("/healthz")
        yield server
    finally:
        print(server.log()[-8000:])
        left = [] if server.process.poll() is not None else descendants(server)
        server.kill()
        for each in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
    server.assert_log_is_clean()


def descendants(running: Server) -> list[psutil.Process]:
    """What it has started; the runner puts each process into a group of its own."""
    return psutil.Process(running.process.pid).children(recursive=True)


def runs(process: psutil.Process) -> bool:
    """Whether it goes on; a zombie does not."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def stop(running: Server) -> int:
    """SIGTERM to all its processes, and SIGKILL when its time is over."""
    os.killpg(running.process.pid, signal.SIGTERM)
    try:
        return running.wait_until_ended(HEROKU.grace / FASTER_END + HEROKU.kill - HEROKU.grace)
    except subprocess.TimeoutExpired:
        running.kill()
        pytest.fail("Error R12 (Exit timeout)")


class Follower:
    """A client that reads a stream in a thread, and comes back with its last id.

    Its first stream has begun when it is made: it gets what is published from then on.
    """

    def __init__(self, pool: ThreadPoolExecutor, port: int, path: str) -> None:
        self._port, self._path = port, path
        self._begun = threading.Event()
        self._read = pool.submit(self._follow)
        until(lambda: self._begun.is_set() or self._read.done(), f"{path} begins", seconds=30)

    def result(self, seconds: float) -> list[str | None]:
        """The data until the last event or a 204."""
        return self._read.result(seconds)

    def _follow(self) -> list[str | None]:
        seen: list[str | None] = []
        headers: dict[str, str] = {}
        while True:
            with open_stream(self._port, self._path, headers=headers) as stream:
                if stream.head.status == 204:
                    return seen
                assert stream.head.status == 200, stream.head
                self._begun.set()
                for event in stream:
                    assert event.event is None, event
                    if event.data == "last":
                        return seen
                    seen.append(event.data)
                    headers = {"Last-Event-ID": event.id or ""}
                assert stream.ended, "the stream was cut"


@on_every_store
@pytest.mark.waits_long
def test_a_deploy(
    scripted: ScriptedUpstream, script: ScriptedAnswer, tmp_path: Path, store: Store
) -> None:
    completion = json.dumps(
        {"model": "m", "stream": True, "messages": [{"role": "user", "content": script.message}]}
    ).encode()
    may_ask = {**JSON, **bearer("reader")}
    may_publish = bearer("publisher", publish=["numbers"])
    # Without the router what is done in the threads ends, whatever has failed.
    with (
        ThreadPoolExecutor() as pool,
        heroku() as front,
        dyno("web.1", tmp_path, store, scripted) as old,
    ):
        front.choose(old.port)
        numbers = Follower(pool, front.port, "/channels/numbers")
        counter = Follower(pool, front.port, "/sse/v1?count=100&interval=0.05")
        with (
            Publisher(
                front.port, "numbers", "number", per_second=20, headers=may_publish
            ) as publisher,
            open_stream(front.port, "/channels/silence") as silent,
            open_stream(
                front.port,
                "/v1/chat/completions",
                method="POST",
                headers=may_ask,
                body=completion,
            ) as slow,
        ):
            # Its first word comes later than the router waits for the head, and than it is idle.
            assert slow.head.status == 200
            assert slow.next_comments(4) == ["ping"] * 4
            assert silent.next_comments(4) == ["ping"] * 4
            script.say("Hello")
            assert "Hello" in str(slow.next().data)

            front.choose(0)
            ending = pool.submit(stop, old)
            with dyno("web.2", tmp_path, store, scripted, by_honcho) as new:
                front.choose(new.port)
                assert silent.rest() == []
                assert len(silent.retries) == 1
                last = slow.rest()[-1]
                assert json.loads(last.data or "")["error"]["code"] == "interrupted"
                assert ending.result(30) == 0
                publisher.wait_for(10)  # which go to the new one
                publisher.stop()
                assert not publisher.repeated, "a connection was broken"
                publish(front.port, "numbers", "last", may_publish)
                assert numbers.result(30) == publisher.data()
                assert counter.result(30) == [str(n) for n in range(100)]
                with open_stream(new, "/sse/v1?count=100000&interval=0.01") as counting:
                    assert counting.next().data == "0"
                    processes = descendants(new)
                    assert len(processes) >= 2, "gunicorn and its worker"
                    new.send_signal(signal.SIGTERM)
                    counting.rest()
                    assert len(counting.retries) == 1
                # The runner waits for the shell alone, in which the Procfile's line is run.
                new.wait_until_ended()
                until(lambda: not any(map(runs, processes)), "gunicorn and its worker end")
                assert "Shutting down: Master" in new.log()
    assert front.codes() == []
    assert "203.0.113.7 - - [" in old.log(), "the client's address, as the router says it"
    assert "DYNO is set: defaults fit the platform heroku" in old.log()


def test_the_router_cuts() -> None:
    """Otherwise the test above would show nothing."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    answers = {
        "/slow": None,
        "/idle": head + b"1\r\nx\r\n",
        "/none": b"",
        "/cut": head + b"5\r\nx",
        "/whole": head + b"1\r\nx\r\n0\r\n\r\n",
    }

    def answer(listener: socket.socket) -> None:
        for _ in answers:
            client, _ = listener.accept()
            path = client.recv(65_536).split(b" ")[1].decode()
            client.sendall(answers[path] or b"")
            if path in ("/slow", "/idle"):
                client.recv(1)  # until the router has had enough
            client.close()

    with router(0.5, 0.5) as front, socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer, args=(listener,))
        thread.start()
        front.choose(listener.getsockname()[1])
        found = {}
        for path in answers:
            with contextlib.suppress(AssertionError):  # a body that is cut
                fetch(front.port, path)
            line = front.wait_for(path)
            found[path] = (line["code"], line["status"])
        thread.join(10)
        front.choose(free_port())
        assert fetch(front.port, "/nobody").status == 503
        assert front.wait_for("/nobody")["code"] == "H21"
    assert found == {
        "/slow": ("H12", 503),
        "/idle": ("H15", 200),
        "/none": ("H13", 503),
        "/cut": ("H18", 200),
        "/whole": (None, 200),
    }
