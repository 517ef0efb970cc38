"""Repeated publishing at the same moment and after a restart; keys and ids at their limits."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.live.kit.clients import open_stream
from tests.live.kit.connection import Answer, Connection
from tests.live.kit.publishing import channel_library, epoch, error_of, post, publish
from tests.live.kit.servers import Server, free_port
from tests.live.kit.services import service
from tests.live.kit.stores import Store, on_every_store
from tests.live.kit.waiting import until

BODY = b'[{"data": "one"}, {"data": "two"}]'


@on_every_store
def test_the_same_key_many_times_at_once(channels: Server, channel: str) -> None:
    """On two workers: one of the requests publishes, all get its answer."""
    for attempt in range(5):
        key = {"Idempotency-Key": f"{channel}-{attempt}"}
        together = threading.Barrier(16)

        def ask(key: dict[str, str] = key, together: threading.Barrier = together) -> Answer:
            together.wait(20)
            return post(channels, channel, BODY, headers=key)

        with ThreadPoolExecutor(16) as pool:
            answers = [each.result() for each in [pool.submit(ask) for _ in range(16)]]
        assert [answer.status for answer in answers] == [201] * 16
        assert len({answer.body for answer in answers}) == 1
        assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1
    last = publish(channels, channel, "last")
    with open_stream(channels, f"/channels/{channel}?last_event_id=earliest") as stream:
        assert stream.data(10) == ["one", "two"] * 5
        assert stream.next().id == last


@on_every_store
def test_different_contents_under_one_key_at_once(channels: Server, channel: str) -> None:
    key = {"Idempotency-Key": channel}
    together = threading.Barrier(8)

    def ask(n: int) -> Answer:
        together.wait(20)
        return post(channels, channel, b'{"data": %d}' % n, headers=key)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(8)))
    assert sorted(answer.status for answer in answers) == [201] + [409] * 7


@on_every_store
def test_a_key_is_the_channels_own(channels: Server, channel: str) -> None:
    key = {"Idempotency-Key": channel}
    first = publish(channels, f"{channel}.a", "x", headers=key)
    assert publish(channels, f"{channel}.b", "y", headers=key) != first


@on_every_store
def test_a_key_outlives_the_server(tmp_path: Path, store: Store) -> None:
    """The answer was lost, the server killed: the repetition still publishes nothing."""
    port, settings = free_port(), store(tmp_path)
    key = {"Idempotency-Key": "k" * 255}
    with service(tmp_path, port=port, settings=settings) as server:
        first = post(server, "a", BODY, headers=key)
        assert first.status == 201
        server.kill()
        until(lambda: not server.members(), "all its processes are gone")
    with service(tmp_path, port=port, settings=settings) as server:
        again = post(server, "a", BODY, headers=key)
        assert (again.status, again.body) == (201, first.body)
        assert again.headers["idempotency-replayed"] == "true"
        error_of(post(server, "a", b"other", "text/plain", headers=key), 409)


@pytest.mark.parametrize("key", ["k" * 256, "two words", "", "k\xe9y", "\t"])
def test_keys_that_are_none(channels: Server, channel: str, key: str) -> None:
    error_of(post(channels, channel, BODY, headers={"Idempotency-Key": key}), 400)


@pytest.mark.parametrize(
    "number", ["9" * 18, "9" * 19, "9" * 40, "1_0", "\u0661", "0x1", "1e0", "01", "\u00b2"]
)
def test_numbers_that_are_none(channels: Server, channel: str, number: str) -> None:
    """Nothing that Python, but no id, takes for a number; nothing that SQLite can't hold."""
    known = publish(channels, channel, "known")
    wrong = f"{epoch(known)}-{number}"
    quoted = "".join(c if c.isascii() else "".join(f"%{b:02X}" for b in c.encode()) for c in wrong)
    with open_stream(channels, f"/channels/{channel}?last_event_id={quoted}") as stream:
        said = stream.next()
        assert said.event == "gap", said
        gap = json.loads(said.data or "")
        assert (gap["reason"], gap["last_event_id"]) == ("unknown", wrong)
        sent = publish(channels, channel, "next")
        while (event := stream.next()).id != sent:
            assert event.id == known


@pytest.mark.parametrize("digits", [12, 18, 19, 30, 5000])
def test_large_numbers(channels: Server, channel: str, digits: int) -> None:
    """A client may get a very long `retry`, or the request is refused; it is no 500."""
    retry = "9" * digits
    answer = post(channels, channel, b'{"data": 1, "retry": %s}' % retry.encode())
    if answer.status == 201:
        with open_stream(channels, f"/channels/{channel}?last_event_id=earliest") as stream:
            assert stream.next().retry == retry
    else:
        error_of(answer, 400)


def test_old_events_are_forgotten(tmp_path: Path) -> None:
    """By age, although there are few of them; a client that lacks them gets a gap."""
    settings = {"SSEFLASK_HISTORY_SECONDS": "1", "SSEFLASK_HISTORY_EVENTS": "1000"}
    with service(tmp_path, settings=settings) as server:
        first = publish(server, "a", "first")
        second = publish(server, "a", "second")

        def forgotten() -> bool:
            publish(server, "other", "something happens")
            with open_stream(server, f"/channels/a?last_event_id={first}") as stream:
                event = stream.next()
                if event.event != "gap":
                    assert event.id == second
                    return False
                gap = json.loads(event.data or "")
                assert (gap["reason"], gap["channel"]) == ("trimmed", "a")
                return True

        until(forgotten, "the old are forgotten", pause=0.2, seconds=40)
        with open_stream(server, f"/channels/a?last_event_id={second}") as stream:
            sent = publish(server, "a", "third")
            assert stream.next().id == sent, "who has had them misses nothing"


def test_in_memory(tmp_path: Path) -> None:
    """For one worker; its end is another epoch."""
    settings = {"SSEFLASK_CHANNEL_LOG": ":memory:"}
    port = free_port()
    with service(tmp_path, port=port, settings=settings) as server:
        ids = [publish(server, "a", str(n)) for n in range(10)]
        with open_stream(server, f"/channels/a?last_event_id={ids[3]}") as stream:
            assert [stream.next().id for _ in range(6)] == ids[4:]
        assert not list(tmp_path.glob("*memory*"))
    with service(tmp_path, port=port, settings=settings) as server:
        known = publish(server, "a", "new")
        with open_stream(server, f"/channels/a?last_event_id={ids[3]}") as stream:
            assert json.loads(stream.next().data or "")["reason"] == "epoch"
            assert stream.next().id == known, "all that this store has"


def test_short_requests_leave_nothing_behind(tmp_path: Path) -> None:
    """HEAD, refused, left before the answer, reset after it, HTTP/1.0: in turn."""
    with channel_library(tmp_path, settings={"PROBE_HEARTBEAT": "600"}) as server:
        process = server.serving()
        with open_stream(server, "/subscribe?c=a"):
            before = process.num_fds()
        for _ in range(100):
            with Connection(server) as connection:
                connection.request("/subscribe?c=a", method="HEAD", headers={"Connection": "close"})
                assert connection.head().status == 200
            with Connection(server) as connection:
                connection.request("/subscribe?c=a", method="POST", body=b"")
                assert connection.head().status == 405
            with Connection(server) as connection:
                connection.request("/subscribe?c=a")
            with Connection(server) as connection:
                connection.request("/subscribe?c=a&last_event_id=earliest")
                connection.reset()
            with open_stream(server, "/subscribe?c=a") as stream:
                stream.connection.reset()
            with open_stream(server, "/subscribe?c=a", version="1.0") as stream:
                assert stream.head.status == 200
        until(lambda: process.num_fds() <= before + 2, "nothing is left")
