"""A replica takes the master's place: events go on, and there is a gap only if one is lost."""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from sseflask.store.api import Appended, Missing, StoreError
from sseflask.store.names import Pattern
from tests import redis_server
from tests.contract.event_stores import Place, numbers, opened, put, query
from tests.live.kit.servers import free_port
from tests.live.kit.waiting import until
from tests.redis_cluster import OPTIONS, cluster, do, follow, role, sentinel
from tests.unit.store.redis.test_event_store_faults import put_when_possible


def test_in_a_cluster(program: str) -> None:
    """The replica takes over, and then the slot moves, key by key."""
    with cluster(program, masters=2) as made:
        place = Place(made.url, shared=True)
        with opened(place) as (one, its), opened(place) as (other, others):
            other.position()
            put(one, "a", b"1", b"2", key="k")
            do(made.replica, "CLUSTER", "FAILOVER")
            until(lambda: role(made.replica) == "master", "the replica to be the master")
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
