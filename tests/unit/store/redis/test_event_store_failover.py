"""A replica takes the master's place: events go on, and there is a gap only if one is lost."""

from __future__ import annotations

import hashlib
import threading
import time
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from sseflask.store.api import Appended, Missing, StoreError
from sseflask.store.names import Pattern
from sseflask.store.redis import event_scripts
from sseflask.store.redis.event_store import RedisEventStore
from tests import redis_server
from tests.contract.event_stores import Listener, Place, numbers, opened, put, query
from tests.live.kit.servers import free_port
from tests.live.kit.waiting import until
from tests.redis_cluster import OPTIONS, Pair, cluster, do, fail_over, follow, sentinel
from tests.unit.store.redis.test_event_store_faults import put_when_possible


def test_in_a_cluster(program: str) -> None:
    """The replica takes over, and then the slot moves, key by key."""
    with cluster(program, masters=2) as made:
        place = Place(made.url, shared=True)
        with opened(place) as (one, its), opened(place) as (other, others):
            other.position()
            put(one, "a", b"1", b"2", key="k")
            fail_over(made.replica)
            after = put_when_possible(one, "a", b"3").first
            assert after > 1_000_000_000

            source, target = made.replica, made.masters[1]
            made.begin_to_move(source, target)
            (tail,) = (key for key in made.keys(source) if key.endswith(b":tail"))
            made.move_keys(source, target, [tail])
            for store in (one, other):
                with pytest.raises(StoreError, match="moves what it has to another server now"):
                    put(store, "a", b"4")
            made.end_move(source, target)
            last = put_when_possible(other, "a", b"4").first
            assert put(one, "a", b"1", b"2", key="k") == Appended(1, 2, repeated=True)
            for listener in (its, others):
                listener.wait_for(last)
                assert listener.order == [1, 2, after, last]
                assert len(listener.started_at) == 1
            history = other.history(query("a", after=1))
            assert (numbers(history.entries), history.missing) == ([2, after, last], [])


def test_a_replica_without_the_last_writes_that_a_sentinel_names(tmp_path: Path) -> None:
    program = redis_server.redis()
    with ExitStack() as stack:
        master, replica = (
            stack.enter_context(redis_server.running(program, *OPTIONS, port=free_port()))
            for _ in range(2)
        )
        follow(replica, master)
        watching = stack.enter_context(sentinel(program, tmp_path, master))
        place = Place(watching.url, shared=True)
        with opened(place) as (one, its), opened(place) as (other, others):
            other.position()
            put(one, "a", b"1", b"2")
            with closing(master.client()) as client:
                assert client.wait(1, 10_000) == 1
            # What comes after it never reaches the replica.
            do(replica, "REPLICAOF", "127.0.0.1", "1")
            lost = put(one, "a", b"lost").first
            others.wait_for(lost)
            master.freeze()  # and nobody knows whether it comes back
            do(replica, "REPLICAOF", "NO", "ONE")
            watching.watch(replica)
            after = put_when_possible(one, "a", b"new", seconds=30.0)
            assert after.epoch != its.started_at[0][0]
            until(lambda: len(others.started_at) == 2, "the other process to begin again")
            others.wait_for(after.first)
            assert its.order == others.order == [1, 2, lost, after.first]
            # A client that has seen the lost event may have missed others.
            history = other.history(query("a", after=lost))
            assert history.missing == [Missing(Pattern.parse("a"), 1, after.first)]
            assert numbers(other.history(query("a")).entries) == [1, 2, after.first]


class OrderedListener(Listener):
    """One whose order says where it began."""

    def started(self, epoch: str, newest: int) -> None:
        super().started(epoch, newest)
        self.order.append("started")


def test_what_another_process_alone_knows_to_be_lost_is_told_before_what_comes_next(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though who publishes finds the new master first, and lacks nothing."""
    patient = event_scripts._OPEN.text.replace("AWAITED, HERE = 3, 5", "AWAITED, HERE = 30, 30")
    assert patient != event_scripts._OPEN.text
    # A busy machine needs more than these seconds.
    monkeypatch.setattr(event_scripts._OPEN, "text", patient)
    sha = hashlib.sha1(patient.encode(), usedforsecurity=False).hexdigest()
    monkeypatch.setattr(event_scripts._OPEN, "sha", sha)
    place = Place(pair.url, shared=True)
    with (
        opened(place, listener=OrderedListener) as (one, its),
        opened(Place(f"{pair.url}&socket_timeout=6", True)) as (other, _),
    ):
        assert isinstance(one, RedisEventStore)
        assert isinstance(other, RedisEventStore)
        one.position()
        put(other, "a", b"1", b"2")
        its.wait_for(2)
        # Notices are lost too, so that numbers of notices come again.
        pair.part()
        one.close_subscriptions([Pattern.parse("x")])
        monkeypatch.setattr(one._news, "take", lambda *_: None)
        put(other, "a", b"lost")
        may_connect, connect = threading.Event(), other._server.address.connect

        def connect_later() -> object:
            may_connect.wait(30)
            return connect()

        monkeypatch.setattr(other._server.address, "connect", connect_later)
        pair.take_over()
        results: list[Appended] = []
        publisher = threading.Thread(
            target=lambda: results.append(put_when_possible(one, "a", b"3", seconds=30.0))
        )
        publisher.start()
        until(
            lambda: do(pair.replica, "KEYS", "*:awaited"),
            "the first process to find the new master",
        )
        monkeypatch.setattr(one._news, "take", type(one._news).take.__get__(one._news))
        may_connect.set()
        publisher.join(30)
        (after,) = results
        its.wait_for(after.first)
        assert its.order == ["started", 1, 2, "x", "started", after.first]
        assert after.epoch == its.started_at[-1][0]


def test_who_was_lost_with_the_master_is_not_awaited_for_long(pair: Pair) -> None:
    with opened(Place(pair.url, shared=True)) as (one, its):
        first = put(one, "a", b"1")
        (here,) = (key for key in do(pair.master, "KEYS", "*:here"))
        do(pair.master, "ZADD", here, time.time(), "lost", time.time() - 30, "lost long ago")
        pair.part()
        pair.take_over()
        until(lambda: do(pair.replica, "KEYS", "*:awaited"), "the process to find the new master")
        (awaited,) = do(pair.replica, "KEYS", "*:awaited")
        assert do(pair.replica, "ZRANGE", awaited, 0, -1) == [b"lost"]
        after = put_when_possible(one, "a", b"2", seconds=10.0)
        assert its.order == [first.first, after.first]
