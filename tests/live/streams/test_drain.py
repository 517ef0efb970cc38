"""How streams end when their server does: nothing is cut, and `finally` always runs.

Resumable streams end at once; all others run on until seconds before the grace time
ends (at Ctrl-C they end at once) and then get a failure in band.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import signal
from pathlib import Path

import psutil
import pytest

from tests.live.kit.clients import open_stream
from tests.live.kit.connection import Connection, fetch
from tests.live.kit.downloads import downloads
from tests.live.kit.kinds import GEVENT, probe_command, probe_server
from tests.live.kit.servers import Server, free_port, running
from tests.live.kit.subscribers import EVENT_SOURCE
from tests.live.kit.waiting import until
from tests.live.kit.workers import suspended

on_draining_servers = pytest.mark.parametrize("kind", GEVENT)


def in_order(numbers: list[str]) -> bool:
    return numbers == [str(n) for n in range(len(numbers))]


def refuses_connections(server: Server) -> bool:
    """Whether nobody listens.

    The kernel resets a connection that came just before the listener was closed.
    """
    with contextlib.suppress(ConnectionRefusedError):
        with contextlib.suppress(ConnectionResetError), Connection(server):
            pass
        return False
    return True


@on_draining_servers
def test_sigterm(kind: str, tmp_path: Path) -> None:
    # Two seconds of it are kept for the end: the finite stream has four.
    with probe_server(kind, tmp_path, "--graceful-timeout", "6") as server:
        with downloads(
            server,
            "/numbers?ids&count=100000",
            "/silent?ids&heartbeat=9999",
            "/busy?count=100000",
            "/numbers?count=100000",
            "/silent?heartbeat=9999",
            "/numbers?count=25&interval=0.05",
        ) as streams:
            counter, resumable, busy, endless, silent, finite = streams
            server.send_signal(signal.SIGTERM)
            counter.assert_sent_away()
            resumable.assert_sent_away()
            until(lambda: refuses_connections(server), "new connections refused")
            assert endless.going_on()
            assert silent.going_on()
            finite.assert_undisturbed()
            endless.assert_failed_in_band()
            silent.assert_failed_in_band()
            busy.assert_failed_in_band()
        assert server.wait_until_ended() == 0
    assert in_order(counter.data)
    assert resumable.data == ["first"]
    assert in_order(endless.data)
    assert len(endless.data) > len(counter.data), "it ran on"
    assert [line.split()[0] for line in busy.data] == [str(n) for n in range(len(busy.data))]
    assert finite.data == [str(n) for n in range(25)]
    assert silent.data == ["first"]
    for stream in streams:
        assert server.marks(stream.tag)[-1] == "finally"
        assert server.marks(stream.tag).count("finally") == 1


#: As on a busy machine: the interpreter takes a while to shut down, and waits for a thread.
SLOW_EXIT = """
import threading, time
from sseflask import gunicorn_conf
from sseflask.gunicorn_conf import *

def worker_exit(server, worker):
    gunicorn_conf.worker_exit(server, worker)
    threading.Thread(target=time.sleep, args=(0.5,)).start()
"""


EARLY_SIGTERM = """
import os
import signal


def post_fork(server, worker):
    if worker.age == 1:
        os.kill(worker.pid, signal.SIGTERM)
"""


def test_sigterm_while_the_worker_is_made(tmp_path: Path) -> None:
    """It comes before the worker has handlers of its own, and ends the worker all the same."""
    configuration = tmp_path / "early.py"
    configuration.write_text(EARLY_SIGTERM)
    options = ["-c", str(configuration), "--preload"]
    with probe_server("gunicorn-worker", tmp_path, *options) as server:
        until(lambda: server.log().count("Booting worker") == 2, "the next worker was made")
        assert "Worker exiting" in server.log()
        assert fetch(server, "/hello").status == 200


@on_draining_servers
def test_ctrl_c(kind: str, tmp_path: Path) -> None:
    configuration = tmp_path / "slow_exit.py"
    configuration.write_text(SLOW_EXIT)
    options = ["-c", str(configuration), "--graceful-timeout", "60"]
    with probe_server(kind, tmp_path, *options) as server:
        with (
            downloads(
                server,
                "/numbers?ids&count=100000",
                "/silent?ids&heartbeat=9999",
                "/busy?count=100000",
                "/numbers?count=100000",
                "/silent?heartbeat=9999",
            ) as streams,
            Connection(server) as not_begun,
            Connection(server) as event_source,
        ):
            not_begun.request("/late?tag=late&first_byte=9999&heartbeat=9999")
            late = "/late?tag=later&first_byte=9999&heartbeat=9999"
            event_source.request(late, headers=EVENT_SOURCE)
            server.wait_for_mark("late", "started")
            server.wait_for_mark("later", "started")
            server.interrupt()
            head = not_begun.head()
            assert head.status == 503, "its headers had not gone out: a proper response"
            assert json.loads(not_begun.body(head))["error"]["code"] == "shutting_down"
            head = event_source.head()
            assert head.status == 200, "any other would close an EventSource for good"
            sent = event_source.body(head)
            assert re.fullmatch(rb": The server is shutting down; .*\nretry: [1-9]\d{3}\n", sent)
            for stream in streams[:2]:
                stream.assert_sent_away()
            for stream in streams[2:]:
                stream.assert_failed_in_band()
        server.wait_until_ended(20)
    assert in_order(streams[0].data)
    assert in_order(streams[3].data)
    assert server.marks("late") == ["started", "finally"]
    for stream in streams:
        assert server.marks(stream.tag)[-1] == "finally"


@on_draining_servers
def test_sighup_moves_streams_to_the_next_worker(kind: str, tmp_path: Path) -> None:
    """A resumable stream goes on where it was: nothing lost, nothing twice."""
    with probe_server(kind, tmp_path, "--graceful-timeout", "10") as server:
        old = json.loads(fetch(server, "/stats").body)["pid"]
        with (
            downloads(server, "/numbers?count=80&interval=0.05") as (finite,),
            open_stream(server, "/numbers?ids&count=100000&interval=0.01&tag=moved") as stream,
        ):
            seen = stream.data(3)
            server.send_signal(signal.SIGHUP)
            seen += [event.data for event in stream.rest()]
            assert len(stream.retries) == 1
            assert finite.going_on()
            server.wait_for_mark("moved", "finally")
            until(
                lambda: json.loads(fetch(server, "/stats").body)["pid"] != old,
                "a new worker answers",
            )
            # The old worker may still take the first attempts, and send them away again.
            for _ in range(20):
                last = {"Last-Event-ID": str(seen[-1])}
                with open_stream(server, "/numbers?ids&count=100000", headers=last) as resumed:
                    first = resumed.next()
                    assert first.retry is None, "what events and clients say counts"
                    following = [event.data for event in itertools.islice(resumed, 5)]
                    seen += [first.data, *following]
                if len(following) == 5:
                    break
            else:
                pytest.fail("no worker kept the stream")
            finite.assert_undisturbed()
    assert seen == [str(n) for n in range(len(seen))]
    assert finite.data == [str(n) for n in range(80)]


@on_draining_servers
def test_max_requests(kind: str, tmp_path: Path) -> None:
    options = ["--graceful-timeout", "5", "--max-requests", "8"]
    with probe_server(kind, tmp_path, *options) as server:
        pid = json.loads(fetch(server, "/stats").body)["pid"]
        with downloads(server, "/numbers?ids&count=100000", "/numbers?count=40&interval=0.05") as (
            counter,
            finite,
        ):
            until(
                lambda: json.loads(fetch(server, "/stats").body)["pid"] != pid,
                "a new worker answers",
            )
            counter.assert_sent_away()
            finite.assert_undisturbed()
        server.wait_for_mark(counter.tag, "finally")
    assert in_order(counter.data)
    assert finite.data == [str(n) for n in range(40)]


@on_draining_servers
def test_many_streams_end_properly(kind: str, tmp_path: Path) -> None:
    with probe_server(kind, tmp_path, "--graceful-timeout", "30") as server:
        with contextlib.ExitStack() as stack:
            streams = [
                stack.enter_context(
                    open_stream(server, f"/numbers?ids&count=100000&interval=0.1&tag=many-{n}")
                )
                for n in range(200)
            ]
            assert [stream.next().data for stream in streams] == ["0"] * 200
            server.send_signal(signal.SIGTERM)
            for stream in streams:
                rest = [event.data for event in stream.rest()]
                assert rest == [str(n) for n in range(1, len(rest) + 1)]
                assert len(stream.retries) == 1
            retries = {stream.retries[0] for stream in streams}
        assert server.wait_until_ended() == 0
        assert len(retries) > 50, "they must not all come back in the same moment"
        assert [server.marks(f"many-{n}") for n in range(200)] == [["finally"]] * 200


@on_draining_servers
def test_what_does_not_want_to_end_holds_nothing_up(kind: str, tmp_path: Path) -> None:
    """Neither a generator that ignores its end, nor a `finally` that blocks, nor a client that
    reads nothing keeps the server from ending, or a well-behaved stream from ending well."""
    with probe_server(kind, tmp_path, "--graceful-timeout", "3") as server:
        with (
            open_stream(server, "/stubborn?tag=stubborn&times=1000000&heartbeat=9999") as stubborn,
            open_stream(server, "/slow-finally?tag=cleaning&heartbeat=9999") as cleaning,
            open_stream(server, "/flood?tag=flood&heartbeat=9999", receive_buffer=4096),
            downloads(server, "/silent?heartbeat=9999", "/numbers?ids&count=100000") as streams,
        ):
            assert stubborn.next().data == "first"
            assert cleaning.next().data == "first"
            server.send_signal(signal.SIGTERM)
            streams[1].assert_sent_away()
            streams[0].assert_failed_in_band()
            server.wait_until_ended(15)
        assert "cleaning" in server.marks("cleaning")
        if kind == "gunicorn-worker":
            assert "Worker exiting" in server.log(), (
                "it has ended before gunicorn's master kills it"
            )
        for stream in streams:
            assert server.marks(stream.tag)[-1] == "finally"


def test_a_connection_without_a_request_holds_nothing_up_and_gets_nothing(tmp_path: Path) -> None:
    """Browsers and load balancers open some in advance."""
    with probe_server("gunicorn-worker", tmp_path, "--graceful-timeout", "60") as server:
        with Connection(server) as silent, Connection(server) as begun:
            begun.socket.sendall(b"GET / HT")
            assert fetch(server, "/hello").status == 200, "the others have been accepted before"
            server.send_signal(signal.SIGTERM)
            assert silent.rest() == b""
            server.interrupt()
            assert begun.rest() == b"", "it has had no time to be too slow"
        server.wait_until_ended()
    server.assert_log_is_clean()


def test_connections_that_came_before_the_end_are_served(tmp_path: Path) -> None:
    """The worker is busy when it is told to stop: the kernel accepts connections for it."""
    with probe_server("gunicorn-worker", tmp_path, "--graceful-timeout", "20") as server:
        (worker,) = server.workers()
        with contextlib.ExitStack() as stack:
            with suspended(worker):
                connections = [stack.enter_context(Connection(server)) for _ in range(30)]
                for n, connection in enumerate(connections):
                    connection.request(f"/hello?q={n}")
                server.send_signal(signal.SIGTERM)
                until(lambda: awaits_sigterm(worker), "the worker has the signal")
            for n, connection in enumerate(connections):
                answer = json.loads(connection.body(connection.head()))
                assert answer["query"] == str(n)
                assert connection.at_end()
        assert server.wait_until_ended() == 0


def awaits_sigterm(process: psutil.Process) -> bool:
    """Whether the signal has been sent, but has not come while the process stands still."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    (pending,) = re.findall(r"^ShdPnd:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return bool(int(pending, 16) >> (signal.SIGTERM - 1) & 1)


RELOADED = """
import os, time
from flask import Flask, Response
from sseflask import SSE, EventSourceResponse

app = Flask(__name__)
SSE(app)

@app.get("/pid")
def pid():
    return str(os.getpid())

@app.get("/endless")
def endless():
    def ticks():
        while True:
            yield "tick"
            time.sleep(0.05)
    return EventSourceResponse(ticks())
"""


@on_draining_servers
def test_a_saved_file_waits_for_no_stream(kind: str, tmp_path: Path) -> None:
    """In development: the stream has no ids, so a deploy would let it run on."""
    source = tmp_path / "reloaded.py"
    source.write_text(RELOADED)
    port = free_port()
    options = ["--reload", "--graceful-timeout", "60", "--chdir", str(tmp_path), "reloaded:app"]
    command = [*probe_command(kind, port, *options)[:-1]]
    with running(kind, command, port, tmp_path, ready="/pid") as server:
        old = fetch(server, "/pid").body
        with open_stream(server, "/endless") as stream:
            assert stream.next().data == "tick"
            source.write_text(f"{RELOADED}# saved\n")
            *_, last = stream.rest()
            assert last.event == "failure"
            assert json.loads(last.data or "")["error"]["code"] == "shutting_down"
            until(lambda: fetch(server, "/pid").body != old, "the new worker answers", seconds=15)
    server.assert_log_is_clean()
