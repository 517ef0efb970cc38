"""The library's channels on every kind of server: the same bytes, with what each of them has."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.live.kit.clients import curl, open_stream
from tests.live.kit.connection import Connection, fetch
from tests.live.kit.events import Sent
from tests.live.kit.kinds import GEVENT, PROBE, SERVERS, probe_command
from tests.live.kit.publishing import LIBRARY, number
from tests.live.kit.servers import Server, free_port, running
from tests.live.kit.services import logs
from tests.live.kit.stores import Store, on_every_store
from tests.live.kit.subscribers import EVENT_SOURCE
from tests.live.kit.waiting import settled, until

pytestmark = on_every_store


@contextlib.contextmanager
def library(
    kind: str, directory: Path, *options: str, settings: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """The small application on a server of this kind, with a heartbeat of 0.3 s."""
    port = free_port()
    command = probe_command(kind, port, *options)
    command = [LIBRARY if part == PROBE else part for part in command]
    changes = {**logs(directory), "PROBE_HEARTBEAT": "0.3", **(settings or {})}
    with running(kind, command, port, directory, changes) as server:
        yield server
    server.assert_log_is_clean()


@pytest.fixture(scope="module", params=SERVERS)
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, store: Store
) -> Iterator[Server]:
    kind: str = request.param
    grace = ["--graceful-timeout", "4"] if kind.startswith("gunicorn") else []
    directory = tmp_path_factory.mktemp(kind)
    with library(kind, directory, *grace, settings=store(directory)) as server:
        yield server


def say(server: Server, channel: str, text: str, query: str = "") -> str:
    answer = fetch(server, f"/publish/{channel}{query}", method="POST", body=text.encode())
    assert answer.status == 201, answer.body
    return str(json.loads(answer.body)["id"])


def test_publish_and_subscribe(served: Server, channel: str) -> None:
    with open_stream(served, f"/subscribe?c={channel}") as stream:
        assert stream.head.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert stream.head.headers["cache-control"] == "no-store, no-transform"
        first = say(served, channel, "two\nlines")
        second = say(served, channel, "b", "?event=note&retry=700")
        assert stream.next() == Sent(id=first, data="two\nlines")
        assert stream.next() == Sent(id=second, event="note", data="b", retry="700")
        assert number(second) > number(first)


def test_heartbeats(served: Server, channel: str) -> None:
    with open_stream(served, f"/subscribe?c={channel}") as stream:
        assert stream.next_comments(3) == ["ping"] * 3
        sent = say(served, channel, "after")
        assert stream.next().id == sent


def test_it_ends_after_an_event_and_stays_ended(served: Server, channel: str) -> None:
    path = f"/subscribe?c={channel}.*&until=done&until=failed"
    with open_stream(served, path) as live, open_stream(served, path) as other:
        live.next_comments(1)
        other.next_comments(1)  # and so both wait for what comes
        ids = [say(served, f"{channel}.{n}", str(n)) for n in range(3)]
        ids.append(say(served, f"{channel}.1", "well", "?event=done"))
        say(served, f"{channel}.0", "more")
        expected = [*ids[:3], f"{ids[3]}.end"]
        for stream in (live, other):
            assert [event.id for event in stream.rest()] == expected
    with open_stream(served, f"{path}&since=earliest") as stream:
        assert [event.id for event in stream.rest()] == expected
    with open_stream(served, path, headers={"Last-Event-ID": ids[1]}) as stream:
        assert [event.id for event in stream.rest()] == expected[2:]
    answer = fetch(served, path, headers={"Last-Event-ID": expected[3]})
    assert (answer.status, answer.body) == (204, b"")


def test_a_page_goes_on_from_what_it_shows(served: Server, channel: str) -> None:
    shown = [say(served, channel, str(n)) for n in range(3)]
    page = json.loads(fetch(served, f"/history/{channel}").body)
    assert page["ids"] == shown
    later = [say(served, channel, "meanwhile")]
    with open_stream(served, f"/subscribe?c={channel}&since={page['cursor']}") as stream:
        later.append(say(served, channel, "live"))
        assert [stream.next().id for _ in range(2)] == later


def test_close_and_count(served: Server, channel: str) -> None:
    def count(name: str) -> str:
        return fetch(served, f"/subscribers/{name}").body.decode()

    with (
        open_stream(served, f"/subscribe?c={channel}.7&c={channel}.news") as closed,
        open_stream(served, f"/subscribe?c={channel}.8") as stays,
    ):
        until(lambda: count(f"{channel}.*") == "2", "both have subscribed")
        assert [count(f"{channel}.{name}") for name in ("7", "news", "none")] == [*"110"]
        bye = say(served, f"{channel}.7", "bye")
        assert fetch(served, f"/close/{channel}.7", method="POST").status == 204
        say(served, f"{channel}.7", "secret")
        assert [event.id for event in closed.rest()] == [bye]
        assert [500 <= int(retry) <= 3000 for retry in closed.retries] == [True]
        assert count(f"{channel}.**") == "1"
        after = say(served, f"{channel}.8", "still there")
        assert stays.next().id == after


def test_resume(served: Server, channel: str) -> None:
    ids = [say(served, f"{channel}.{n % 2}", str(n)) for n in range(20)]
    with open_stream(
        served, f"/subscribe?c={channel}.*", headers={"Last-Event-ID": ids[4]}
    ) as stream:
        ids.append(say(served, f"{channel}.1", "live"))
        assert [stream.next().id for _ in range(16)] == ids[5:]
    with open_stream(served, f"/subscribe?c={channel}.1&last_event_id=earliest") as stream:
        assert [stream.next().id for _ in range(11)] == [*ids[1:20:2], ids[20]]
    with open_stream(served, f"/subscribe?c={channel}.1&last_event_id=garbage") as stream:
        said = stream.next()
        assert said.event == "gap"
        assert json.loads(said.data or "")["reason"] == "unknown"


def test_where_it_begins(served: Server, channel: str) -> None:
    with open_stream(served, f"/subscribe?c={channel}", headers=EVENT_SOURCE) as stream:
        begins = stream.head.headers["last-event-id"]
        assert stream.next().id == begins
    sent = say(served, channel, "while away")
    with open_stream(
        served, f"/subscribe?c={channel}", headers={"Last-Event-ID": begins}
    ) as stream:
        assert stream.next().id == sent


def test_those_who_leave_leave_nothing_behind(served: Server, channel: str) -> None:
    process = served.serving()
    with open_stream(served, f"/subscribe?c={channel}") as stream:
        say(served, channel, "first")
        assert stream.next().data == "first"
    # What tests before this one have left may still be closing.
    before = settled(process.num_fds, "as many descriptors as a moment before", pause=0.3)
    for turn in range(3):
        with contextlib.ExitStack() as stack:
            streams = [
                stack.enter_context(open_stream(served, f"/subscribe?c={channel}"))
                for _ in range(20)
            ]
            say(served, channel, str(turn))
            assert [stream.next().data for stream in streams] == [str(turn)] * 20
            opened = process.num_fds()
            if turn == 1:
                for stream in streams:
                    stream.connection.reset()
    most = min(before + 4, opened - 15)
    until(lambda: process.num_fds() <= most, "the descriptors are closed", seconds=30)


def test_head_and_http_1_0(served: Server, channel: str) -> None:
    with Connection(served) as connection:
        connection.request(
            f"/subscribe?c={channel}", method="HEAD", headers={"Connection": "close"}
        )
        assert connection.head().status == 200
        # waitress ends a body that HEAD does not have; that is its own mistake.
        assert connection.rest() in (b"", b"0\r\n\r\n" if served.kind == "waitress" else b"")
    sent = say(served, channel, "old")
    path = f"/subscribe?c={channel}&last_event_id=earliest"
    with open_stream(served, path, version="1.0") as stream:
        assert stream.next() == Sent(id=sent, data="old")


def test_curl(served: Server, channel: str) -> None:
    """Cut off by curl's own --max-time: what was there has come."""
    ids = [say(served, channel, str(n)) for n in range(3)]
    expected = [line for n, sent in enumerate(ids) for line in (f"id: {sent}", f"data: {n}", "")]
    for seconds in (1, 20):
        done = curl(served, f"/subscribe?c={channel}&last_event_id=earliest", seconds=seconds)
        assert done.returncode == 28, done.stderr
        lines = [line for line in done.stdout.splitlines() if not line.startswith((":", "retry:"))]
        if lines:  # on a busy machine a second may be too short for the first of them
            break
    assert lines == expected


def test_a_thread_or_a_cron_job_publishes(served: Server, store: Store, channel: str) -> None:
    """A process that has the store has the channels, for example a cron job."""
    with (
        library("flask", served.directory / channel, settings=store(served.directory)) as other,
        open_stream(served, f"/subscribe?c={channel}") as here,
        open_stream(other, f"/subscribe?c={channel}") as there,
    ):
        ids = [say(server, channel, "x") for server in (served, other, served, other, other)]
        assert ids == sorted(ids, key=number)
        for stream in (here, there):
            assert [stream.next().id for _ in range(5)] == ids


@pytest.mark.parametrize("kind", GEVENT)
def test_sigterm(kind: str, tmp_path: Path, store: Store) -> None:
    grace = ["--graceful-timeout", "10"]
    with library(kind, tmp_path, *grace, settings=store(tmp_path)) as server:
        with contextlib.ExitStack() as stack:
            streams = [
                stack.enter_context(open_stream(server, "/subscribe?c=a")) for _ in range(30)
            ]
            sent = say(server, "a", "last")
            server.send_signal(signal.SIGTERM)
            for stream in streams:
                assert [event.id for event in stream.rest()] == [sent]
                assert 500 <= int(stream.retries[-1]) <= 3000
        assert server.wait_until_ended() == 0


@pytest.mark.parametrize("kind", ["flask", "waitress", "gunicorn-gthread"])
def test_sigterm_on_other_servers(kind: str, tmp_path: Path, store: Store) -> None:
    """They promise no clean end, but they do end, and the store is intact afterwards."""
    grace = ["--graceful-timeout", "2"] if "gunicorn" in kind else []
    with (
        library(kind, tmp_path, *grace, settings=store(tmp_path)) as it,
        open_stream(it, "/subscribe?c=a") as stream,
    ):
        sent = say(it, "a", "first")
        assert stream.next().id == sent
        it.send_signal(signal.SIGTERM)
        it.wait_until_ended(20)
    with (
        library("flask", tmp_path, settings=store(tmp_path)) as again,
        open_stream(again, "/subscribe?c=a&last_event_id=earliest") as stream,
    ):
        assert stream.next().id == sent
