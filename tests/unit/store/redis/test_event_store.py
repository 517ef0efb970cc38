"""The store under gevent, its groups, what is trimmed and what it takes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sseflask.store.api import Append, Appended, EventLimits, EventStore, Missing, StoreError
from sseflask.store.names import Pattern
from sseflask.store.open import open_event_store
from sseflask.store.redis import event_reading
from tests.contract.event_stores import (
    DAY,
    Listener,
    Place,
    numbers,
    opened,
    put,
    query,
    read,
)
from tests.live.kit.waiting import until
from tests.processes import report_of
from tests.redis_server import RedisServerProcess


@pytest.fixture
def place(server: RedisServerProcess) -> Place:
    return Place(server.place(), shared=True)


@pytest.fixture
def own(place: Place) -> Iterator[tuple[EventStore, Listener]]:
    with opened(place) as own:
        yield own


def test_under_gevent_the_loop_never_waits(program: str) -> None:
    report = report_of("tests.unit.store.redis.greenlets", Path(program))
    assert report["switches"] == [], "with a native lock held"
    assert report["in order"]
    assert report["scripts"] <= 3000 / 100
    assert report["counted by threads"] == [3] * 8
    assert report["given"] == 3000 + 8 + 1
    assert report["closes"] == 8
    assert report["in the loop"]
    assert report["refused after standing still"] == 0
    assert report["refused"] == 3
    assert report["health"] == "unavailable"
    assert 1.5 < report["given up after"] < 6
    assert report["back after"] < 2
    assert report["longest pause"] < report["given up after"] / 2


def test_a_large_append_is_one(place: Place) -> None:
    frames = tuple(b"%d" % number for number in range(3000))
    with opened(place, keep=5000) as (one, its), opened(place, keep=5000) as (other, others):
        other.position()
        assert put(one, "a", *frames) == Appended(1, 3000)
        others.wait_for(3000)
        for listener in (its, others):
            assert tuple(entry.frame for entry in listener.entries) == frames
        assert tuple(entry.frame for entry in read(other, query("a", limit=500))) == frames


def test_pages_end_by_their_size(own: tuple[EventStore, Listener]) -> None:
    store, _ = own
    for number in range(12):
        put(store, f"c.{number % 3}", b"%d" % number * 100_000)
    page = store.history(query("c.*", "c.0", limit=100))
    assert 0 < len(page.entries) < 12
    assert sum(len(entry.frame) for entry in page.entries) < 2 * event_reading.PAGE_BYTES
    assert numbers(read(store, query("c.*"))) == list(range(1, 13))


def test_what_was_never_published_to_is_not_missing(own: tuple[EventStore, Listener]) -> None:
    store, _ = own
    put(store, "a", b"1")
    history = store.history(query("never", "never.*", "a", after=0))
    assert (numbers(history.entries), history.missing) == ([1], [])


def test_patterns_of_many_channels(place: Place) -> None:
    with opened(place, keep=3) as (store, _):
        for number in range(1000):
            put(store, f"c.{number}.{'x' if number % 2 else 'y'}", b"%d" % number)
        found = read(store, query("c.*.x", "c.7.x", "c.8.y", limit=50))
        assert numbers(found) == sorted([9, *range(2, 1001, 2)])
        assert store.history(query("c.*.x", after=0, limit=5)).missing == []


def test_the_young_are_kept_for_others_to_come_back(server: RedisServerProcess) -> None:
    limits = EventLimits(3, DAY, young_seconds=60.0)
    store = open_event_store(server.place(), limits)
    store.follow(Listener())
    for _ in range(50):
        put(store, "a", b"x")
    assert len(read(store, query("a"))) == 50
    assert store.history(query("a", after=0)).missing == []
    store.close()


def test_the_tail_is_trimmed_by_bytes_and_age(server: RedisServerProcess) -> None:
    store = open_event_store(server.place(), EventLimits(10, DAY))
    store.follow(Listener())
    with closing(server.client()) as client:
        for number in range(100):
            put(store, "a", b"x" * 500_000)
            if number == 50:
                # As if it were long ago: the marks of time are the server's.
                (times,) = client.scan_iter("*:times")
                client.delete(times)
                client.zadd(times, {"50": client.time()[0] - 100})
        (tail,) = client.scan_iter("*:tail")

        def shorter() -> bool:
            put(store, "a", b"x")
            entries: int = client.xlen(tail)
            return entries < 100

        until(shorter, "the tail to be trimmed", pause=0.1)
        assert client.xlen(tail) >= 50
    store.close()


def test_old_events_are_trimmed(server: RedisServerProcess) -> None:
    place = server.place()
    store = open_event_store(place, EventLimits(1000, 1.0))
    store.follow(Listener())
    put(store, "quiet", b"1")
    for _ in range(400):
        put(store, "loud", b"x" * 200)
    put(store, "loud", b"last of the old")

    def trimmed() -> bool:
        put(store, "loud", b"new")
        return not read(store, query("quiet")) and len(read(store, query("loud"))) < 390

    until(trimmed, "the old events to be gone", pause=0.1)
    missing = store.history(query("quiet", "loud", "none", "*", after=0)).missing
    assert {str(each.pattern) for each in missing} >= {"quiet", "loud", "*"}
    # Nothing is left of what nobody publishes to any more.
    with closing(server.client()) as client:
        (last,) = client.scan_iter("*:last")
        until(
            lambda: (put(store, "loud", b"new"), client.zscore(last, "quiet"))[1] is None,
            "the channel to be forgotten",
            pause=0.1,
        )
    missing = store.history(query("quiet", after=0)).missing
    assert missing == [Missing(Pattern.parse("quiet"), None, None)]
    store.close()


def test_all_keys_have_an_end_or_are_few(
    server: RedisServerProcess, own: tuple[EventStore, Listener]
) -> None:
    store, _ = own
    for number in range(20):
        put(store, f"c.{number}", b"x", key=str(number))
    store.count_subscriptions(Pattern.parse("a"))
    with closing(server.client()) as client:
        lasting = {
            key.decode().rpartition(":")[2] for key in client.scan_iter() if client.ttl(key) < 0
        }
    # Their size is bounded, or they expire with the next event.
    assert lasting <= {"meta", "here", "first", "last", "tail", "times"}


def test_the_last_events_are_stored_before_the_end(place: Place) -> None:
    with opened(place) as (store, listener):
        results: list[object] = []

        def publish() -> None:
            try:
                while True:
                    results.append(put(store, "a", b"x"))
            except StoreError as error:
                results.append(error)

        threads = [threading.Thread(target=publish) for _ in range(5)]
        for thread in threads:
            thread.start()
        until(lambda: len(results) > 20, "some events")
        store.close()
        for thread in threads:
            thread.join(10)
        stored = sum(isinstance(result, Appended) for result in results)
        assert stored == len(results) - 5
        assert len(listener.order) >= stored
    with opened(place) as (other, _):
        assert other.position().number == len(listener.order)


def test_the_rights_that_suffice(server: RedisServerProcess) -> None:
    rights = (
        "on >secret resetkeys ~{shop}:* -@all +@read +@write +@connection +@scripting"
        " -@dangerous +info +time"
    )
    with closing(server.client()) as client:
        client.execute_command("ACL", "SETUSER", "shop", *rights.split())
        client.execute_command("ACL", "SETUSER", "default", "off")
    place = Place(f"unix://shop:secret@{server.socket}?prefix=shop", shared=True)
    with opened(place, keep=3) as (one, _), opened(place) as (other, others):
        for _ in range(10):
            put(one, "a", b"x", key="k")
            put(one, "a", b"y")
        one.close_subscriptions([Pattern.parse("a")])
        others.wait_for("a")
        assert one.count_subscriptions(Pattern.parse("a")) == 0
        assert [each.pattern for each in one.history(query("a", "*", after=0)).missing] == [
            Pattern.parse("a"),
            Pattern.parse("*"),
        ]
        assert one.extent().bytes > 0
        assert other.health() == "available"
        with pytest.raises(StoreError, match="lacks a permission"):
            one._server.call(lambda link: link.command("GET", "elsewhere"))  # type: ignore[attr-defined]


def test_a_process_is_there_while_events_come_all_the_time(
    server: RedisServerProcess, place: Place
) -> None:
    over = threading.Event()

    def publish(store: EventStore) -> None:
        while not over.wait(0.02):
            put(store, "a", b"x")

    with (
        opened(place) as (one, _),
        opened(place) as (other, _),
        closing(server.client()) as client,
    ):
        publisher = threading.Thread(target=publish, args=(one,))
        publisher.start()
        try:
            other.position()
            here = other._scripts.key("here")  # type: ignore[attr-defined]
            process = other._scripts._name  # type: ignore[attr-defined]
            said = {client.zscore(here, process)}

            def said_again() -> bool:
                said.add(client.zscore(here, process))
                return len(said) == 3

            until(said_again, "it to say that it is there, again and again")
        finally:
            over.set()
            publisher.join(20)


def test_a_store_is_opened_by_its_url(server: RedisServerProcess) -> None:

    store = open_event_store(server.url, EventLimits(10, DAY))
    store.follow(Listener())
    assert isinstance(store.append(Append("a", (b"x",))), Appended)
    with closing(server.client()) as client:
        assert client.exists("{sseflask}:e:meta")
    store.close()


def test_no_script_stores_for_long(server: RedisServerProcess, place: Place) -> None:
    """However many wait, and for however many channels: the server does nothing else meanwhile."""
    with opened(place) as (store, _), server.client() as client:
        put(store, "warm", b"x")
        left, results = threading.Semaphore(0), []

        def done(result: object, _error: Exception | None) -> None:
            results.append(result)
            left.release()

        for many in (1000, 1):
            client.config_resetstat()
            for index in range(1000):
                store._submit(Append(f"c.{index % many}", (b"x",)), done)  # type: ignore[attr-defined]  # without a thread for each
            for _ in range(1000):
                assert left.acquire(timeout=20)
            calls = client.info("commandstats")["cmdstat_evalsha"]["calls"]
            assert (8 if many == 1000 else 3) <= calls < 60
        assert all(isinstance(result, Appended) for result in results)
        assert len(results) == 2000
