"""What becomes of events when the server fails: nothing is lost unsaid, and nothing comes twice."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest

from sseflask.channels.channels import Channels
from sseflask.store.api import (
    Appended,
    EventLimits,
    EventStore,
    KeyReused,
    Missing,
    StoreBusy,
    StoreError,
)
from sseflask.store.names import Pattern
from sseflask.store.redis import address
from sseflask.store.run_api import StoreFull
from tests import redis_server
from tests.contract.event_stores import DAY, Listener, Place, numbers, opened, put, query, read
from tests.live.kit.waiting import until
from tests.redis_server import RedisServerProcess

#: Seconds in which all goes on after the server is back.
BACK = 5.0

Own = tuple[EventStore, Listener]


@pytest.fixture
def place(server: RedisServerProcess) -> Place:
    return Place(server.place(), shared=True)


@pytest.fixture
def own(place: Place) -> Iterator[Own]:
    with opened(place) as own:
        yield own


@contextmanager
def saving(program: str) -> Iterator[RedisServerProcess]:
    """A server that writes every change to its disk."""
    options = ("--save", "", "--appendonly", "yes", "--appendfsync", "always")
    with redis_server.running(program, *options) as server:
        yield server


def put_when_possible(
    store: EventStore, channel: str, frame: bytes, seconds: float = BACK
) -> Appended:
    end = time.monotonic() + seconds
    while True:
        try:
            return put(store, channel, frame)
        except StoreError:
            assert time.monotonic() < end, "the store does not come back"
            time.sleep(0.01)


def numbers_given(listener: Listener) -> list[int]:
    return [each for each in listener.order if isinstance(each, int)]


def test_connections_that_are_killed_are_not_noticed(
    server: RedisServerProcess, place: Place
) -> None:
    results: tuple[list[Appended], list[Appended]] = [], []
    with opened(place, keep=10_000) as (one, its), opened(place, keep=10_000) as (other, others):
        for each in (one, other):
            each.position()

        def publish(tag: int) -> None:
            store = (one, other)[tag % 2]
            for index in range(200):
                stored = put(store, f"c.{tag}", b"%d" % index)
                results[tag % 2].append(stored)  # one by one: it is watched

        threads = [threading.Thread(target=publish, args=(tag,)) for tag in range(6)]
        for thread in threads:
            thread.start()

        def publishing() -> list[bool]:
            return [any(each.is_alive() for each in threads[first::2]) for first in (0, 1)]

        kills = 0
        with closing(server.client()) as client:
            while any(publishing()):
                kills += client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                # A store makes a few attempts. On a busy machine one may have made none while the
                # other has stored many: each has to store something before the next kill.
                before = [len(each) for each in results]
                while any(
                    active and len(each) == stood
                    for active, each, stood in zip(publishing(), results, before, strict=True)
                ):
                    time.sleep(0.01)
        assert kills > 5
        for listener in (its, others):
            listener.wait_for(1200)
            assert listener.order == list(range(1, 1201))
            assert len(listener.started_at) == 1
        stored = [*results[0], *results[1]]
        assert sorted(result.first for result in stored) == list(range(1, 1201))
        assert not any(result.repeated for result in stored)
        assert len(read(one, query("c.*", limit=500))) == 1200


def test_scripts_that_are_forgotten_are_sent_again(server: RedisServerProcess, own: Own) -> None:
    store, listener = own
    put(store, "a", b"1")
    server.command("SCRIPT", "FLUSH")
    assert put(store, "a", b"2") == Appended(2, 2)
    server.command("SCRIPT", "FLUSH")
    assert numbers(read(store, query("a"))) == [1, 2]
    server.command("SCRIPT", "FLUSH")
    store.close_subscriptions([Pattern.parse("a")])
    assert listener.order == [1, 2, "a"]


def test_after_flushing_all_have_a_new_epoch(server: RedisServerProcess, place: Place) -> None:
    with opened(place) as (one, its), opened(place) as (other, others):
        put(one, "a", b"1", b"2")
        others.wait_for(2)
        server.command("FLUSHALL")
        assert put(one, "a", b"new") == Appended(1, 1)
        epoch = one.position().epoch
        assert epoch != its.started_at[0][0]
        assert its.started_at[1:] == [(epoch, 0)]
        assert its.order == [1, 2, 1]
        until(lambda: len(others.started_at) == 2, "the other process to begin again")
        assert others.started_at[1][0] == epoch
        assert other.position() == (epoch, 1)
        assert put(other, "a", b"newer") == Appended(2, 2)
        its.wait_for(2)
        assert numbers(read(other, query("a"))) == [1, 2]


def test_flushing_is_noticed_by_reading_too(server: RedisServerProcess, own: Own) -> None:
    store, listener = own
    put(store, "a", b"1")
    server.command("FLUSHALL")
    history = store.history(query("a", missing="all"))
    assert history.epoch != listener.started_at[0][0]
    assert (history.entries, history.newest) == ([], 0)
    assert listener.started_at[1] == (history.epoch, 0)


def test_a_restart_with_all_data_is_no_gap(program: str) -> None:
    with saving(program) as server, opened(Place(server.place(), shared=True)) as (store, listener):
        put(store, "a", b"1", b"2")
        store.close_subscriptions([Pattern.parse("x")])
        server.stop()
        server.start()
        until(lambda: store.health() == "available", "the server to be back")
        assert store.position() == (listener.started_at[0][0], 2)
        after = put_when_possible(store, "a", b"3")
        # No number is given twice, whatever a server may have lost.
        assert after.first > 1_000_000_000
        assert listener.order == [1, 2, "x", after.first]
        assert len(listener.started_at) == 1
        assert after.epoch == listener.started_at[0][0]
        history = store.history(query("a", after=2))
        assert (numbers(history.entries), history.missing) == ([after.first], [])
        # A client that has seen what nobody knows any more may have missed something else.
        assert store.history(query("a", after=77)).missing == [
            Missing(Pattern.parse("a"), 1, after.first)
        ]


def test_a_restart_that_nobody_has_published_after(program: str) -> None:
    """Who subscribes then waits for nothing but events."""
    with saving(program) as server:
        address = server.place()
        channels = Channels(lambda: address, EventLimits(100, DAY))
        ids = channels.publish("a", [b"data: 1\n"])
        assert not isinstance(ids, KeyReused)
        (first,) = ids
        for _ in range(2):
            server.stop()
            server.start()
            until(lambda: channels.store.health() == "available", "the server to be back")
            assert channels.position() == first
            for place in (None, first):
                subscription = channels.subscribe([Pattern.parse("a")], place)
                assert subscription.get(0.1) is None
                subscription.abandon()
            subscription = channels.subscribe([Pattern.parse("a")], "earliest")
            found = subscription.get(5)
            assert found is not None
            assert b"data: 1" in found[0]
            subscription.abandon()
        subscription = channels.subscribe([Pattern.parse("a")], first)
        assert subscription.get(0.1) is None
        channels.publish("a", [b"data: 2\n"])
        found = subscription.get(5)
        assert found is not None
        assert b"data: 2" in found[0]
        subscription.abandon()
        channels.close()


def test_a_restart_without_data_is_a_new_epoch(server: RedisServerProcess, own: Own) -> None:
    store, listener = own
    put(store, "a", b"1", b"2")
    server.stop()
    with pytest.raises(StoreError):
        put(store, "a", b"lost")
    server.start()
    assert put_when_possible(store, "a", b"3") == Appended(1, 1)
    assert len(listener.started_at) == 2
    assert listener.started_at[1][1] == 0
    assert listener.order == [1, 2, 1]


def test_writes_that_a_server_has_lost_are_a_new_epoch(program: str) -> None:
    with redis_server.running(program, "--save", "", "--appendonly", "no") as server:
        place = Place(server.place(), shared=True)
        with opened(place) as (one, its), opened(place) as (other, others):
            put(one, "a", b"1", b"2")
            server.command("SAVE")
            put(one, "a", b"lost", b"lost too")
            others.wait_for(4)
            server.stop()
            server.start()  # as a replica that is promoted without the last writes
            after = put_when_possible(one, "a", b"new")
            assert after.first > 1_000_000_000
            assert after.epoch != its.started_at[0][0]
            until(lambda: len(others.started_at) == 2, "the other process to begin again")
            assert others.started_at[1][0] == its.started_at[1][0] == after.epoch
            others.wait_for(after.first)
            assert its.order == others.order == [1, 2, 3, 4, after.first]
            # What it has kept can still be read.
            assert numbers(read(other, query("a"))) == [1, 2, after.first]


def test_a_full_memory_refuses_what_is_to_be_stored_alone(
    server: RedisServerProcess, own: Own, caplog: pytest.LogCaptureFixture
) -> None:
    store, listener = own
    put(store, "a", b"1")
    server.command("CONFIG", "SET", "maxmemory", "1")
    for _ in range(3):
        with pytest.raises(StoreFull, match="memory of the Redis server"):
            put(store, "a", b"2", key="k")
    assert numbers(read(store, query("a"))) == [1]
    assert store.health() == "read_only"
    problem = store.problem()
    assert problem is not None
    assert problem.reason.startswith("OOM ")
    server.command("CONFIG", "SET", "maxmemory", "0")
    assert store.health() == "available"
    assert store.problem() is None
    assert put(store, "a", b"2", key="k") == Appended(2, 2)
    assert listener.order == [1, 2]
    (record,) = caplog.records
    assert "is full" in record.getMessage()


def test_what_redis_throws_away_is_said_to_be_missing(server: RedisServerProcess, own: Own) -> None:
    store, _ = own
    put(store, "a", b"1", b"2")
    put(store, "b", b"3")
    with closing(server.client()) as client:
        (stream,) = list(client.scan_iter("*channel:a"))
        client.delete(stream)
    assert store.history(query("a", "b", "*", after=1)).missing == [
        Missing(Pattern.parse("a"), None, None),
        Missing(Pattern.parse("*"), 3, 3),
    ]
    put(store, "a", b"4")
    assert store.history(query("a", "b", after=1)).missing == [Missing(Pattern.parse("a"), 4, 4)]
    assert store.history(query("a", "b", after=2)).missing == []
    assert numbers(read(store, query("*"))) == [3, 4]


@pytest.mark.parametrize("lost", ["last", "first", "times", "tail", "here"])
def test_what_redis_throws_away_beside_events(
    server: RedisServerProcess, own: Own, lost: str
) -> None:
    store, listener = own
    put(store, "a", b"1")
    put(store, "b", b"2")
    with closing(server.client()) as client:
        for key in client.scan_iter(f"*:{lost}"):
            client.delete(key)
    # Nothing is missing, but it may be said so.
    assert {entry.number for entry in read(store, query("a", "b"))} == {1, 2}
    assert put(store, "a", b"3") == Appended(3, 3)
    assert store.position().number == 3
    assert listener.order == [1, 2, 3]
    assert len(listener.started_at) == 1
    assert {entry.number for entry in read(store, query("a", "b"))} == {1, 2, 3}
    store.close_subscriptions([Pattern.parse("b")])
    assert listener.order == [1, 2, 3, "b"]


def test_without_an_index_what_is_gone_is_missing(server: RedisServerProcess, own: Own) -> None:
    store, _ = own
    put(store, "a", b"1")
    put(store, "b", b"2")
    with closing(server.client()) as client:
        for key in [*client.scan_iter("*:last"), *client.scan_iter("*:channel:a")]:
            client.delete(key)
    for _ in range(2):
        assert [each.pattern for each in store.history(query("a", "*", after=0)).missing] == [
            Pattern.parse("a"),
            Pattern.parse("*"),
        ]
        last = put(store, "c", b"3").last
    # From then on it is whole again.
    put(store, "d", b"5")
    assert store.history(query("a", "c", "d", "*", after=last)).missing == []


def test_a_tail_that_is_gone_before_it_was_read(server: RedisServerProcess, own: Own) -> None:
    store, listener = own
    put(store, "a", b"1")
    with closing(server.client()) as client:
        (meta,) = client.scan_iter("*:meta")
        client.hset(meta, "n", 10)  # as if others had stored something, and Redis lost it
    listener.wait_for(10)
    assert listener.order == [1, ("skipped", 10)]
    assert put(store, "a", b"11") == Appended(11, 11)
    assert listener.order == [1, ("skipped", 10), 11]


def test_events_that_are_evicted(server: RedisServerProcess, place: Place) -> None:
    frame = b"x" * 40_000
    with opened(place) as (store, listener):
        put(store, "c.0", frame)
        with closing(server.client()) as client:
            used = client.info("memory")["used_memory"]
            client.config_set("maxmemory-policy", "allkeys-lru")
            client.config_set("maxmemory", used + 3_000_000)
        results = [put(store, f"c.{number}", frame) for number in range(1, 200)]
        assert [entry.channel for entry in listener.entries] == [f"c.{n}" for n in range(200)]
        # What all events hang on may have been thrown away too: then they have another epoch.
        epoch = results[-1].epoch
        position = store.position()
        assert position.epoch != epoch or position == (epoch, results[-1].last)
        assert {result.epoch for result in results} <= {each for each, _ in listener.started_at}
        names = [f"c.{n}" for n, result in enumerate(results, 1) if result.epoch == epoch]
        there = {entry.channel for entry in read(store, query(*names, limit=500))}
        assert len(there) < 100
        page = store.history(query(*names))
        lacking = {str(each.pattern) for each in page.missing}
        assert page.epoch != epoch or set(names) - there <= lacking, "not a word of it"


def test_a_server_that_becomes_a_replica(server: RedisServerProcess, own: Own) -> None:
    store, listener = own
    put(store, "a", b"1")
    server.command("REPLICAOF", "127.0.0.1", "1")
    with pytest.raises(StoreError, match="is a replica"):
        put(store, "a", b"2")
    with pytest.raises(StoreError, match="is a replica"):
        store.position()
    assert store.health() == "unavailable"
    server.command("REPLICAOF", "NO", "ONE")
    after = put_when_possible(store, "a", b"3")
    listener.wait_for(after.first)
    assert listener.order == [1, after.first]
    assert len(listener.started_at) == 1


def test_a_slow_server_is_waited_for(server: RedisServerProcess, own: Own) -> None:
    store, listener = own
    put(store, "a", b"1")
    began = time.monotonic()
    server.command("CLIENT", "PAUSE", "1500", "ALL")
    assert store.health() == "busy"
    assert put(store, "a", b"2") == Appended(2, 2)
    assert time.monotonic() - began > 1.0
    assert listener.order == [1, 2]
    assert store.health() == "available"


def test_a_server_that_answers_nothing(
    server: RedisServerProcess, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(address, "COMMAND_SECONDS", 2.0)
    with opened(place) as (store, listener):
        put(store, "a", b"1")
        server.freeze()
        try:
            with pytest.raises(StoreBusy):
                put(store, "a", b"2", key="k")
            # From here on nobody waits.
            for call in (
                lambda: put(store, "a", b"2"),
                lambda: store.history(query("a")),
                lambda: store.position(),
            ):
                assert seconds_of(call) < 0.2
            assert store.health() == "unavailable"
        finally:
            server.thaw()
        # It may have been stored, or not.
        while True:
            try:
                after = put(store, "a", b"2", key="k")
            except StoreError:
                time.sleep(0.01)
            else:
                break
        assert (after.first, after.last) == (2, 2)
        listener.wait_for(2)
        assert listener.order == [1, 2]


def seconds_of(call: Callable[[], object]) -> float:
    began = time.monotonic()
    with pytest.raises(StoreError):
        call()
    return time.monotonic() - began


def test_the_log_has_one_line_for_each_change(
    server: RedisServerProcess, own: Own, caplog: pytest.LogCaptureFixture
) -> None:
    store, _ = own
    put(store, "a", b"1")
    for times in (1, 2, 3):
        server.stop(signal.SIGTERM)
        until(lambda: store.health() == "unavailable", "the store to know it")
        for _ in range(3):
            with pytest.raises(StoreError):
                store.position()
        server.start()
        until(lambda: store.health() == "available", "the store to be back")
        put_when_possible(store, "a", b"1")
        lines = [record.getMessage() for record in caplog.records]
        assert len(lines) == 2 * times, lines
        assert "can't be reached" in lines[-2]
        assert "is there again" in lines[-1]


def test_a_key_of_another_type(
    server: RedisServerProcess, own: Own, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody else writes under our prefix: nothing is half stored, and the log is not flooded."""
    store, listener = own
    put(store, "a", b"1")
    with closing(server.client()) as client:
        (tail,) = client.scan_iter("*:tail")
        client.delete(tail)
        client.set(tail, "not ours")
        until(lambda: "WRONGTYPE" in caplog.text, "the log to say it")
        for _ in range(2):
            with pytest.raises(StoreError, match="WRONGTYPE"):
                put(store, "a", b"2", key="k")
        client.delete(tail)
    assert put(store, "a", b"2", key="k") == Appended(2, 2)
    listener.wait_for(2)
    until(lambda: "can be followed again" in caplog.text, "the log to say it")
    assert len(caplog.records) == 2


def test_notices_alone_do_not_fill_the_memory(server: RedisServerProcess, own: Own) -> None:
    store, listener = own
    put(store, "a", b"1")
    lengths = []
    with closing(server.client()) as client:
        (meta,) = client.scan_iter("*:meta")
        (tail,) = client.scan_iter("*:tail")
        for index in range(8):
            store.close_subscriptions([Pattern.parse(f"c.{index}.{each}") for each in range(1500)])
            lengths.append(client.xlen(tail))
            client.hset(meta, "y", time.time() - 60)  # as if that was a while ago
    assert max(lengths) < 9000
    assert put(store, "a", b"2") == Appended(2, 2)
    assert len(listener.order) == 2 + 8 * 1500


@pytest.mark.parametrize("command", ["xadd", "hset", "set", "zadd", "xlen", "expire"])
def test_a_command_that_is_refused_in_the_middle(
    server: RedisServerProcess, own: Own, command: str
) -> None:
    """Nothing is acknowledged that is not stored, and afterwards all goes on."""
    store, _ = own
    put(store, "a", b"1")
    server.command("ACL", "SETUSER", "default", f"-{command}")
    with contextlib.suppress(StoreError):
        put(store, "a", b"2", key="k")
    server.command("ACL", "SETUSER", "default", f"+{command}")
    other = put_when_possible(store, "a", b"3")
    repeated = put(store, "a", b"2", key="k")
    frames = {entry.number: entry.frame for entry in read(store, query("a"))}
    assert frames[other.first] == b"3"
    assert frames[repeated.first] == b"2"


@pytest.mark.parametrize("right", ["xread", "evalsha", "zadd", "xrange"])
def test_a_user_who_lacks_a_right_is_told_at_once_which(
    server: RedisServerProcess, place: Place, caplog: pytest.LogCaptureFixture, right: str
) -> None:
    server.command("ACL", "SETUSER", "default", f"-{right}")
    with opened(place) as (store, listener):
        began = time.monotonic()
        with pytest.raises(StoreError, match=f"lacks a permission: .*{right}"):
            put(store, "a", b"1")
        assert time.monotonic() - began < 2
        assert store.health() == "unavailable"
        problem = store.problem()
        assert problem is not None
        assert right in problem.reason
        assert [right in record.getMessage() for record in caplog.records] == [True]
        server.command("ACL", "SETUSER", "default", f"+{right}")
        assert put_when_possible(store, "a", b"1") == Appended(1, 1)
        # Taken while all connections are open.
        server.command("ACL", "SETUSER", "default", f"-{right}")
        until(lambda: store.problem() is not None, "it to be noticed")
        began = time.monotonic()
        with pytest.raises(StoreError, match=f"lacks a permission: .*{right}"):
            put(store, "a", b"2")
        assert time.monotonic() - began < 2
        server.command("ACL", "SETUSER", "default", f"+{right}")
        put_when_possible(store, "a", b"2")
        assert [entry.frame for entry in listener.entries] == [b"1", b"2"]


def test_what_is_stored_twice_had_lost_its_key(server: RedisServerProcess, place: Place) -> None:
    """A server that throws keys away may forget a repetition. It is said when a process begins."""
    frame = b"x" * 40_000
    with server.client() as client, opened(place) as (store, _):
        put(store, "c", b"first")
        assert store.warning() == ""
        client.config_set("maxmemory-policy", "allkeys-random")
        client.config_set("maxmemory", client.info("memory")["used_memory"] + 3_000_000)
        published = [put(store, f"c.{n}", frame, key=f"k{n}") for n in range(150)]
        client.config_set("maxmemory", "0")
        epoch = store.position().epoch
        known = {each.rpartition(b":")[2] for each in client.scan_iter("*:key:*")}
        for number, before in enumerate(published):
            again = put(store, f"c.{number}", frame, key=f"k{number}")
            if before.epoch == epoch:
                assert again.repeated == (b"k%d" % number in known)


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_a_server_that_throws_keys_away_is_warned_of(
    server: RedisServerProcess, place: Place, caplog: pytest.LogCaptureFixture, policy: str
) -> None:
    server.command("CONFIG", "SET", "maxmemory-policy", policy)
    with opened(place) as (store, _):
        put(store, "a", b"1")
        server.command("CLIENT", "KILL", "TYPE", "normal")
        put(store, "a", b"1")
        assert f"maxmemory-policy {policy}" in store.warning()
        (record,) = caplog.records
        assert store.warning() in record.getMessage()
