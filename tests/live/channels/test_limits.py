"""Subscribers under our worker are ordinary connections: counted, logged, rotated, closed."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.kit.clients import Stream, open_stream
from tests.live.kit.connection import Answer, Connection, fetch
from tests.live.kit.publishing import Publisher, channel_library, error_of, post, publish
from tests.live.kit.servers import Server
from tests.live.kit.services import service
from tests.live.kit.subscribers import EVENT_SOURCE, Received, Subscriber
from tests.live.kit.swarm import Swarm
from tests.live.kit.waiting import until

ACCESS = ("--access-logfile", "-", "--access-logformat", "ACCESS %(m)s %(U)s %(s)s %(D)s %(B)s")
QUICK = {"PROBE_HEARTBEAT": "0.2"}


def accesses(server: Server, path: str) -> list[tuple[int, float]]:
    """Status and seconds of each access to a path that is in the log."""
    fields = [
        line.split() for line in server.log().splitlines() if line.startswith(f"ACCESS GET {path} ")
    ]
    return [(int(each[3]), int(each[4]) / 1e6) for each in fields]


def counted(listener: socket.socket) -> list[str]:
    """What gunicorn tells statsd of the next request that has ended."""
    metrics: list[str] = []
    while not metrics or "status" not in metrics[-1]:
        metrics += [
            each for each in [listener.recv(4096).decode()] if each.startswith("gunicorn.req")
        ]
    return metrics


@pytest.fixture
def statsd() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(15)
        yield listener


def test_the_access_log_has_a_subscriptions_real_duration(
    tmp_path: Path, statsd: socket.socket
) -> None:
    """One line, when it has ended, and not before; and statsd counts it then."""
    host = ("--statsd-host", f"127.0.0.1:{statsd.getsockname()[1]}")
    with channel_library(tmp_path, *ACCESS, *host, settings=QUICK) as server:
        counted(statsd)  # whether it is ready
        asked = time.monotonic()
        with open_stream(server, "/subscribe?c=a") as stream:
            begun = time.monotonic()
            stream.next_comments(5)
            assert accesses(server, "/subscribe") == []
            at_least = time.monotonic() - begun
        (line,) = until(lambda: accesses(server, "/subscribe"), "the subscription is logged")
        duration, *others = counted(statsd)
        assert others == ["gunicorn.requests:1|c|@1.0", "gunicorn.request.status.200:1|c|@1.0"]
        milliseconds = float(duration.removeprefix("gunicorn.request.duration:").partition("|")[0])
        assert milliseconds == pytest.approx(line[1] * 1000, abs=0.01)
        at_most = time.monotonic() - asked
        status, seconds = line
        assert status == 200
        # From its request on, until its client has left; two clocks are compared.
        assert at_least - 0.05 <= seconds <= at_most + 0.05, (at_least, seconds, at_most)


def test_the_access_log_when_the_server_ends_them(tmp_path: Path) -> None:
    """30 subscriptions: 10 leave, 10 are reset, 10 are ended; 30 lines, each with 200."""
    with channel_library(tmp_path, *ACCESS, settings=QUICK) as server:
        with contextlib.ExitStack() as stack:
            streams = [
                stack.enter_context(open_stream(server, "/subscribe?c=a")) for _ in range(30)
            ]
            for stream in streams[:10]:
                stream.connection.close()
            for stream in streams[10:20]:
                stream.connection.reset()
            until(lambda: len(accesses(server, "/subscribe")) == 20, "20 have ended")
            server.process.terminate()
            for stream in streams[20:]:
                assert stream.rest() == []
        server.wait_until_ended()
        assert [status for status, _ in accesses(server, "/subscribe")] == [200] * 30


def test_subscribers_count_as_connections(tmp_path: Path) -> None:
    """A worker with as many as it may have takes no more until one leaves; there is
    room for others: of twenty connections subscribers leave one."""
    with (
        service(tmp_path, "--worker-connections", "40") as server,
        contextlib.ExitStack() as stack,
    ):
        open_now: list[Connection] = []

        def subscribe() -> Answer | None:
            connection = stack.enter_context(Connection(server))
            connection.request("/channels/a")
            head = connection.head()
            if head.status != 200:
                return Answer(head.status, head.headers, connection.body(head))
            open_now.append(connection)
            assert len(open_now) <= 40, "it takes any number"
            return None

        refusal = until(subscribe, "no room", pause=0)
        assert refusal is not None
        assert error_of(refusal, 503)["code"] == "too_many_subscribers"
        assert int(refusal.headers["retry-after"]) > 0
        # Which would close an EventSource for good.
        with open_stream(server, "/channels/a", headers=EVENT_SOURCE) as stream:
            assert (stream.head.status, stream.rest()) == (200, [])
            assert 5000 <= int(stream.retries[0]) <= 7500
        assert 30 <= len(open_now) < 40
        assert fetch(server, "/healthz").status == 200
        sent = publish(server, "a", "to all of them")
        for connection in open_now[:5]:
            connection.close()
        until(lambda: subscribe() is None, "another client is served")
        with open_stream(server, f"/channels/a?last_event_id={sent}") as stream:
            sent = publish(server, "a", "also to those who came later")
            assert stream.next().id == sent


def test_subscribers_that_still_catch_up_count_too(tmp_path: Path) -> None:
    """As after a deploy: all come back at once, and none is detached yet."""
    with (
        service(tmp_path, "--worker-connections", "40") as server,
        contextlib.ExitStack() as stack,
    ):
        for _ in range(10):
            publish(server, "a", "x" * 900_000)
        opened, statuses = [], list[int]()
        for _ in range(39):
            connection = stack.enter_context(Connection(server, receive_buffer=4096))
            connection.request("/channels/a?last_event_id=earliest")
            opened.append(connection)
        for connection in opened:
            head = connection.head()
            statuses.append(head.status)
        assert statuses.count(503) == 1
        assert statuses.count(200) == 38
        assert fetch(server, "/healthz").status == 200


def test_streams_are_rotated(tmp_path: Path) -> None:
    """After SSEFLASK_LIFETIME a stream ends properly; its client resumes and loses nothing."""
    settings = {"SSEFLASK_LIFETIME": "1", "SSEFLASK_HEARTBEAT": "0.2"}
    with (
        service(tmp_path, settings=settings) as server,
        Swarm(
            server.port,
            [Subscriber("/channels/a", event_source=bool(n % 2)) for n in range(40)],
        ) as swarm,
    ):
        swarm.wait_for(lambda each: each.last_id is not None, "it knows where it begins")
        with Publisher(server.port, "a", "event", per_second=100) as publisher:
            swarm.wait_for(lambda each: each.proper_ends >= 3, "rotated")
        expected = [Received(event_id, "message", data) for event_id, data in publisher.taken]
        swarm.wait_for(lambda each: each.last_id == expected[-1].id, "has the last event")
        for subscriber in swarm.subscribers:
            assert subscriber.events == expected, subscriber.summary()
            assert subscriber.truncated == 0, subscriber.summary()
            assert not subscriber.gaps, subscriber.summary()
            assert not subscriber.problems, subscriber.summary()


def test_the_reconnection_time_is_the_publishers(channels: Server, channel: str) -> None:
    """It said it once; a client that comes back has it."""
    last = json.loads(post(channels, channel, b'{"data": "last", "retry": 200}').body)["id"]
    path = f"/channels/{channel}"
    with open_stream(channels, path, headers={"Last-Event-ID": last}) as stream:
        sent = publish(channels, channel, "next")
        assert stream.next().id == sent
        assert stream.retries == []


def test_a_half_close_counts_as_leaving(tmp_path: Path) -> None:
    with channel_library(tmp_path, settings={"PROBE_HEARTBEAT": "600"}) as server:
        process = server.serving()
        with open_stream(server, "/subscribe?c=a"):
            before = process.num_fds()
        with contextlib.ExitStack() as stack:
            streams = [
                stack.enter_context(open_stream(server, "/subscribe?c=a")) for _ in range(20)
            ]
            until(lambda: process.num_fds() >= before + 15, "all are open")
            for stream in streams:
                stream.connection.socket.shutdown(socket.SHUT_WR)
            until(lambda: process.num_fds() <= before + 2, "all are let go")


def test_what_a_subscriber_sends_does_no_harm(tmp_path: Path) -> None:
    """It is neither answered, nor read in a busy loop, nor taken for leaving."""
    with channel_library(tmp_path, settings=QUICK) as server:
        process = server.serving()
        with contextlib.ExitStack() as stack:
            streams: list[Stream] = []
            for n in range(20):
                connection = stack.enter_context(Connection(server))
                connection.request("/subscribe?c=a")
                if n % 2:
                    connection.request("/hello")
                streams.append(Stream(connection))
                connection.request("/hello")
                connection.socket.sendall(b"x" * 10_000)
            before = sum(process.cpu_times()[:2])
            for stream in streams:
                assert stream.next_comments(5) == ["ping"] * 5
            assert sum(process.cpu_times()[:2]) - before < 0.6, "of about 1 s: it spins"
            sent = fetch(server, "/publish/a", method="POST", body=b"still there")
            assert sent.status == 201
            assert [stream.next().data for stream in streams] == ["still there"] * 20


def test_a_subscriber_that_sends_for_ever_is_not_read_for_ever(tmp_path: Path) -> None:
    with (
        channel_library(tmp_path, settings=QUICK) as server,
        open_stream(server, "/subscribe?c=a") as stream,
    ):
        stream.next_comments(1)
        stream.connection.socket.settimeout(1)
        sent = 0
        with contextlib.suppress(TimeoutError, ConnectionError):
            while sent < 200_000_000:
                sent += stream.connection.socket.send(b"x" * 65536)
        assert sent < 50_000_000, "it is still being read"
        assert fetch(server, "/hello").status == 200
