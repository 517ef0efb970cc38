"""Strangers that hold connections: whatever they do, short requests are answered at once."""

from __future__ import annotations

import contextlib
import functools
import json
import select
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sseflask.transport.gunicorn.client_connection import BODY_SECONDS, HEAD_SECONDS
from tests.live.kit.clients import open_stream
from tests.live.kit.connection import Connection, fetch
from tests.live.kit.servers import Server
from tests.live.kit.services import service
from tests.live.kit.waiting import until

PLACES = 40
_POST = b"POST /session HTTP/1.1\r\nHost: x\r\n"
_GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
#: What holds a connection, and the first line of the answer when the server has waited enough.
HELD = {
    "nothing": (b"", b""),
    "half a head": (_GET, b"HTTP/1.1 408 "),
    "idle": (_GET + b"\r\n", b"HTTP/1.1 200 "),
    "no body": (_POST + b"Content-Length: 99999\r\n\r\n", b"HTTP/1.1 408 "),
    "half a chunk": (_POST + b"Transfer-Encoding: chunked\r\n\r\n1000\r\nab", b"HTTP/1.1 408 "),
    "a body announced": (
        _POST + b"Expect: 100-continue\r\nContent-Length: 99999\r\n\r\n",
        b"HTTP/1.1 100 ",
    ),
    "a body nobody reads": (
        _GET.replace(b"GET", b"PUT") + b"Content-Length: 9\r\n\r\n",
        b"HTTP/1.1 405 ",
    ),
}


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The service with few places, and an anonymous client's rights, but as often as it likes."""
    directory = tmp_path_factory.mktemp("crowded")
    options = ["--worker-connections", str(PLACES), "--keep-alive", "2"]
    # The demo model limits completions a second, and would refuse them by itself.
    with service(directory, *options, settings={"SSEFLASK_RATE_LIMIT": "off"}) as started:
        yield started


def seconds_of_healthz(server: Server) -> float:
    started = time.monotonic()
    assert fetch(server, "/healthz", headers={"Connection": "close"}).status == 200
    return time.monotonic() - started


def answered_at_once(server: Server) -> bool:
    """Whether short requests are: on a busy machine, most of them."""
    return statistics.median(seconds_of_healthz(server) for _ in range(5)) < 1


def received(connection: Connection) -> bool:
    """Take what has come, without waiting. Returns whether the server has closed."""
    while select.select([connection.socket], [], [], 0)[0]:
        with contextlib.suppress(ConnectionResetError):
            if connection._receive():
                continue
        return True
    return False


def hold(server: Server, sent: bytes, count: int, stack: contextlib.ExitStack) -> list[Connection]:
    held = [stack.enter_context(Connection(server)) for _ in range(count)]
    for connection in held:
        connection.socket.sendall(sent)
    return held


@pytest.mark.parametrize("how", HELD)
def test_short_requests_find_a_place(crowded: Server, how: str) -> None:
    """More are held than there are places; those that were there first make room."""
    sent, answer = HELD[how]
    with contextlib.ExitStack() as stack:
        held = hold(crowded, sent, PLACES + 10, stack)
        assert answered_at_once(crowded)
        until(lambda: sum(map(received, held)) >= 10, "some have been closed")
        buffers = [connection.buffer for connection in held if received(connection)]
        assert all(each.startswith(answer) for each in buffers)
    assert answered_at_once(crowded)


def test_held_connections_are_gone_after_the_deadline(crowded: Server) -> None:
    """Even if clients send a byte now and then; there is room for all of them."""
    with contextlib.ExitStack() as stack:
        held = {how: hold(crowded, sent, 4, stack) for how, (sent, _) in HELD.items()}
        dripping = [*held["half a head"], *held["no body"], *held["half a chunk"]]
        everybody = [connection for each in held.values() for connection in each]
        started = time.monotonic()
        waits = []

        def all_gone() -> bool:
            waits.append(seconds_of_healthz(crowded))
            for connection in dripping:
                with contextlib.suppress(OSError):
                    connection.socket.send(b"1")
            return all(map(received, everybody))

        until(all_gone, "all are closed", seconds=HEAD_SECONDS + 8)
        assert time.monotonic() - started > min(HEAD_SECONDS, BODY_SECONDS) - 1, "none too early"
        assert statistics.median(waits) < 1, "short requests are answered meanwhile"
    for how in ("half a head", "no body", "half a chunk"):
        for connection in held[how]:
            assert connection.buffer.startswith(HELD[how][1])
            assert b"\r\nconnection: close" in connection.buffer.lower()


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/sse/v1?count=1000&interval=100", "too_many_streams"),
        ("/channels/held", "too_many_subscribers"),
        ("/sse/openai_out?format=text&user_message={words}", "too_many_streams"),
    ],
)
def test_what_takes_long_leaves_places_to_what_does_not(
    crowded: Server, path: str, code: str
) -> None:
    before = crowded.log().count("other long requests")
    with contextlib.ExitStack() as stack:
        streams = []
        for _ in range(PLACES + 5):
            connection = stack.enter_context(Connection(crowded))
            connection.request(path.format(words="%20".join(["word"] * 60)))
            streams.append((connection, connection.head()))
        assert answered_at_once(crowded)
        refused = [(each, head) for each, head in streams if head.status == 503]
        if "openai" not in path:  # those end by themselves meanwhile
            assert len(refused) == 7, "two places are kept"
        for connection, head in refused:
            assert head.headers["retry-after"] == "5"
            assert head.headers["connection"] == "close"
            assert json.loads(connection.body(head))["error"]["code"] == code
        said = crowded.log().count("other long requests") - before
        assert said == (1 if refused else 0)
    until(lambda: open_again(crowded), "there are places again")


def open_again(server: Server) -> bool:
    with Connection(server) as connection:
        connection.request("/sse/v1?count=1")
        return connection.head().status == 200


def test_a_body_in_chunks_of_one_byte_lets_others_run(crowded: Server) -> None:
    """About two seconds of work, for which no other request waits."""
    body = b"1\r\nx\r\n" * 400_000 + b"0\r\n\r\n"
    process = crowded.serving()
    with Connection(crowded) as connection:
        form = "application/x-www-form-urlencoded"
        headers = {"Transfer-Encoding": "chunked", "Content-Type": form}
        connection.request("/sse/v1?count=1", method="POST", headers=headers)
        sending = threading.Thread(target=connection.socket.sendall, args=[body])
        before = sum(process.cpu_times()[:2])
        sending.start()
        answered = 0
        while not select.select([connection.socket], [], [], 0)[0]:
            seconds_of_healthz(crowded)
            answered += 1
        taken = sum(process.cpu_times()[:2]) - before
        sending.join()
        assert connection.head().status == 200
    assert answered > 5
    # Of its processor's time: that is the same however busy the machine is.
    assert taken / answered < 0.1


def test_connections_and_memory_are_given_back(crowded: Server) -> None:
    """Of hundreds of streams over few connections: no descriptor is left."""
    process = crowded.serving()
    with open_stream(crowded, "/sse/v1?count=1"):
        before = process.num_fds()
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(Connection(crowded)) for _ in range(10)]
        for n in range(30):
            for connection in connections:
                connection.request(f"/sse/v1?count={n % 3 + 1}&interval=0")
            for connection in connections:
                head = connection.head()
                assert connection.body(head).count(b"data: ") == n % 3 + 1
    until(lambda: process.num_fds() <= before, "the descriptors are as before")


def has_said(server: Server, times: int) -> bool:
    return server.log().count("accepts no more") == times


@pytest.mark.parametrize("options", [[], ["-c", "sseflask/gunicorn_conf.py", "-k", "gevent"]])
def test_a_full_worker_says_so_once(tmp_path: Path, options: list[str]) -> None:
    with service(tmp_path, "--worker-connections", "1", *options) as server:
        for times in (1, 2):
            said = functools.partial(has_said, server, times)
            with open_stream(server, "/sse/v1?count=100&interval=1") as stream:
                assert stream.next().data == "0"
                with Connection(server) as waiting:
                    waiting.request("/healthz")
                    until(said, "the worker says that it is full")
            assert fetch(server, "/healthz").status == 200
