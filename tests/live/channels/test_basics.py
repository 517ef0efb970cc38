"""Publishing to channels and subscribing to them, over HTTP."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.live.kit.clients import Stream, open_stream
from tests.live.kit.connection import Connection, fetch
from tests.live.kit.events import Sent
from tests.live.kit.publishing import JSON, epoch, number, post, publish, publish_all
from tests.live.kit.servers import Server
from tests.live.kit.sockets import owned
from tests.live.kit.stores import STORES, Store, on_every_store
from tests.live.kit.subscribers import EVENT_SOURCE


def received(stream: Stream, count: int) -> list[tuple[str | None, str | None, str | None]]:
    """Id, type and data of the next events."""
    return [(event.id, event.event, event.data) for event in (stream.next() for _ in range(count))]


def test_what_is_published_is_received(channels: Server, channel: str) -> None:
    with open_stream(channels, f"/channels/{channel}") as stream:
        assert stream.head.status == 200
        assert stream.head.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert stream.head.headers["cache-control"] == "no-store, no-transform"
        assert stream.head.headers["x-accel-buffering"] == "no"
        ids = [publish(channels, channel, f"number {n}") for n in range(5)]
        assert received(stream, 5) == [(ids[n], None, f"number {n}") for n in range(5)]
    assert [number(each) for each in ids] == sorted({number(each) for each in ids})
    assert len({epoch(each) for each in ids}) == 1


@on_every_store
def test_subscribers_on_every_worker_get_every_event(channels: Server, channel: str) -> None:
    """Each is published over its own connection, so by any worker."""
    streams: list[Stream] = []
    workers = channels.workers()
    assert len(workers) == 2
    before = [len(owned(worker)) for worker in workers]
    try:
        while len(streams) < 200:
            streams += [open_stream(channels, f"/channels/{channel}") for _ in range(20)]
            open_now = [len(owned(worker)) for worker in workers]
            if all(now >= was + 3 for now, was in zip(open_now, before, strict=True)):
                break
        else:
            pytest.fail("all subscribers are on one worker")
        ids = [publish(channels, channel, str(n)) for n in range(20)]
        assert ids == sorted(ids, key=number)
        for stream in streams:
            assert received(stream, 20) == [(ids[n], None, str(n)) for n in range(20)]
    finally:
        for stream in streams:
            stream.connection.close()


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("text", "text"),
        ("", ""),
        ("two\nlines\n", "two\nlines\n"),
        ("CR\rand CRLF\r\n.", "CR\nand CRLF\n."),
        (" blank first", " blank first"),
        (": no comment", ": no comment"),
        ("id: 7", "id: 7"),
        ("你好 \u2028 \u0085 \U0001f600", "你好 \u2028 \u0085 \U0001f600"),
        ({"a": [1, None, "ü"]}, '{"a":[1,null,"ü"]}'),
        ([1, 2], "[1,2]"),
        (7, "7"),
        (True, "true"),
        (1.5, "1.5"),
        ("x" * 200_000, "x" * 200_000),
    ],
)
def test_data(channels: Server, channel: str, data: Any, text: str) -> None:
    with open_stream(channels, f"/channels/{channel}") as stream:
        sent = publish(channels, channel, data)
        assert stream.next() == Sent(id=sent, data=text)


def test_event_and_retry(channels: Server, channel: str) -> None:
    with open_stream(channels, f"/channels/{channel}") as stream:
        first = publish(channels, channel, "a", event="note")
        second = publish(channels, channel, "b", retry=1234)
        third = publish(channels, channel, {"c": 1}, event="größe", retry=0)
        assert stream.next() == Sent(id=first, event="note", data="a")
        assert stream.next() == Sent(id=second, data="b", retry="1234")
        assert stream.next() == Sent(id=third, event="größe", data='{"c":1}', retry="0")


@on_every_store
def test_an_array_is_stored_together(channels: Server, channel: str) -> None:
    events = [{"data": n, "event": f"kind-{n % 2}"} for n in range(1000)]
    with open_stream(channels, f"/channels/{channel}") as stream:
        answer = post(channels, channel, json.dumps(events).encode())
        assert answer.status == 201, answer.body
        said = json.loads(answer.body)
        assert set(said) == {"ids"}
        assert received(stream, 1000) == [
            (each, f"kind-{n % 2}", str(n)) for n, each in enumerate(said["ids"])
        ]
    numbers = [number(each) for each in said["ids"]]
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize(
    ("kind", "body", "text"),
    [
        ("text/plain", b"hello", "hello"),
        ("text/plain; charset=utf-8", "größe\nzwei".encode(), "größe\nzwei"),
        ("text/plain", b'{"data": "not looked into"}', '{"data": "not looked into"}'),
        ("application/x-www-form-urlencoded", b"a=b&c=%20d", "a=b&c=%20d"),
        ("application/x-www-form-urlencoded", b"hello world+", "hello world+"),
        ("application/json", b'{"data": "hello"}', "hello"),
        ("application/json; charset=utf-8", b' {"data": "hello"} ', "hello"),
        (None, b"hello", "hello"),
    ],
)
def test_bodies(channels: Server, channel: str, kind: str | None, body: bytes, text: str) -> None:
    with open_stream(channels, f"/channels/{channel}") as stream:
        answer = post(channels, channel, body, kind)
        assert answer.status == 201, answer.body
        assert answer.headers["content-type"] == JSON
        assert stream.next() == Sent(id=json.loads(answer.body)["id"], data=text)


NAMES = ["orders.eu.1", "orders.eu", "orders.us", "users.eu", "Orders.eu", "a:b_c-D.0"]


@on_every_store
@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (["orders.*"], ["orders.eu", "orders.us"]),
        (["orders.**"], ["orders.eu.1", "orders.eu", "orders.us"]),
        (["*.eu"], ["orders.eu", "users.eu", "Orders.eu"]),
        (["orders.*.1"], ["orders.eu.1"]),
        (["*.*.*"], ["orders.eu.1"]),
        (["**"], NAMES),
        (["users.eu", "orders.us"], ["orders.us", "users.eu"]),
        (["orders.eu", "orders.*", "orders.**"], ["orders.eu.1", "orders.eu", "orders.us"]),
        (["a:b_c-D.0", "nobody.publishes.here"], ["a:b_c-D.0"]),
        (["users.*", "orders.eu.*"], ["orders.eu.1", "users.eu"]),
    ],
)
def test_patterns(channels: Server, channel: str, asked: list[str], expected: list[str]) -> None:
    """Each event once, however many of the names and patterns it matches, and in order."""
    tag = channel.replace(".", "-")
    query = "&".join(f"c={tag}.{each}" for each in asked)
    with open_stream(channels, f"/channels?{query}") as stream:
        ids = {name: publish(channels, f"{tag}.{name}", name) for name in NAMES}
        assert received(stream, len(expected)) == [(ids[name], None, name) for name in expected]
    if len(asked) == 1:
        first = {"Last-Event-ID": ids[expected[0]]}
        with open_stream(channels, f"/channels/{tag}.{asked[0]}", headers=first) as stream:
            rest = received(stream, len(expected) - 1)
            assert rest == [(ids[name], None, name) for name in expected[1:]]


def test_a_hundred_names_in_one_stream(channels: Server, channel: str) -> None:
    query = "&".join(f"c={channel}.{n}" for n in range(100))
    with open_stream(channels, f"/channels?{query}") as stream:
        ids = [publish(channels, f"{channel}.{n}", str(n)) for n in (99, 0, 50)]
        assert received(stream, 3) == [
            (ids[0], None, "99"),
            (ids[1], None, "0"),
            (ids[2], None, "50"),
        ]


@on_every_store
def test_where_a_fresh_stream_begins(channels: Server, channel: str) -> None:
    """A program gets the cursor in the header, an EventSource in band too; both can then resume."""
    for headers in ({}, EVENT_SOURCE):
        with open_stream(channels, f"/channels/{channel}", headers=headers) as stream:
            begins = stream.head.headers["last-event-id"]
            if headers:
                first = stream.next()
                assert (first.id, first.data, first.event) == (begins, None, None)
        ids = [publish(channels, channel, str(n)) for n in range(3)]
        resumed = {"Last-Event-ID": begins}
        with open_stream(channels, f"/channels/{channel}", headers=resumed) as stream:
            assert received(stream, 3) == [(ids[n], None, str(n)) for n in range(3)]


def test_heartbeats(channels: Server, channel: str) -> None:
    with open_stream(channels, f"/channels/{channel}") as stream:
        assert stream.next_comments(2) == ["ping"] * 2
        sent = publish(channels, channel, "after")
        assert stream.next() == Sent(id=sent, data="after")


@on_every_store
def test_a_repeated_publish_is_a_no_op(channels: Server, channel: str) -> None:
    """Whichever worker gets the repetition."""
    body = json.dumps({"data": "once"}).encode()
    key = {"Idempotency-Key": f"key-of-{channel}"}
    with open_stream(channels, f"/channels/{channel}") as stream:
        first = post(channels, channel, body, headers=key)
        assert first.status == 201
        assert "idempotency-replayed" not in first.headers
        for _ in range(10):
            again = post(channels, channel, body, headers=key)
            assert (again.status, again.body) == (201, first.body)
            assert again.headers["idempotency-replayed"] == "true"
        last = publish(channels, channel, "last")
        sent = json.loads(first.body)["id"]
        assert received(stream, 2) == [(sent, None, "once"), (last, None, "last")]


@on_every_store
def test_a_repeated_array_is_a_no_op(channels: Server, channel: str) -> None:
    body = json.dumps([{"data": n} for n in range(50)]).encode()
    key = {"Idempotency-Key": f"key-of-{channel}"}
    first = post(channels, channel, body, headers=key)
    again = post(channels, channel, body, headers=key)
    assert (first.status, again.status, again.body) == (201, 201, first.body)
    with open_stream(channels, f"/channels/{channel}?last_event_id=earliest") as stream:
        assert [event.data for event in (stream.next() for _ in range(50))] == [
            str(n) for n in range(50)
        ]
        last = publish(channels, channel, "last")
        assert stream.next().id == last


def test_a_key_used_again_for_something_else(channels: Server, channel: str) -> None:
    key = {"Idempotency-Key": f"key-of-{channel}"}
    publish(channels, channel, "one", headers=key)
    assert post(channels, channel, b'{"data": "other"}', headers=key).status == 409
    with open_stream(channels, f"/channels/{channel}?last_event_id=earliest") as stream:
        assert stream.next().data == "one"
        publish(channels, channel, "last")
        assert stream.next().data == "last"


def test_a_publisher_gets_along_on_one_connection(channels: Server, channel: str) -> None:
    with Connection(channels) as connection:
        ids = []
        for n in range(50):
            body = json.dumps({"data": n}).encode()
            connection.request(
                f"/channels/{channel}", method="POST", headers={"Content-Type": JSON}, body=body
            )
            answer = connection.head()
            assert answer.status == 201
            ids.append(json.loads(connection.body(answer))["id"])
    assert ids == sorted(set(ids), key=number)
    assert publish_all(channels, channel, ["more"])


@on_every_store
def test_the_service_is_ready(channels: Server, store: Store) -> None:
    for path in ("/healthz", "/readyz"):
        assert fetch(channels, path).status == 200
    in_a_file = (channels.directory / "channels.sqlite").exists()
    assert in_a_file == (store is STORES["sqlite"]), "or the other tests are of the same store"
