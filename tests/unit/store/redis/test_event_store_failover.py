"""A replica takes the master's place: events go on, and there is a gap only if one is lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from sseflask.store.api import Missing
from sseflask.store.names import Pattern
from tests import redis_server
from tests.contract.event_stores import Place, numbers, opened, put, query
from tests.live.kit.servers import free_port
from tests.live.kit.waiting import until
from tests.redis_server import RedisServerProcess
from tests.unit.store.redis.sentinel import sentinel
from tests.unit.store.redis.test_event_store_faults import put_when_possible

#: Nothing is saved, and a replica is served at once.
OPTIONS = ("--save", "", "--repl-diskless-sync-delay", "0")


def role(server: RedisServerProcess) -> str:
    with closing(server.client()) as client:
        found: str = client.info("replication")["role"]
        return found


def replicates(server: RedisServerProcess) -> bool:
    with closing(server.client()) as client:
        return client.info("replication").get("master_link_status") == "up"


@contextmanager
def cluster(program: str) -> Iterator[tuple[RedisServerProcess, RedisServerProcess]]:
    """A master with all slots, and its replica."""
    with ExitStack() as stack:
        nodes = []
        for _ in range(2):
            bus = free_port()
            options = ("--cluster-enabled", "yes", "--cluster-port", str(bus), *OPTIONS)
            server = stack.enter_context(redis_server.running(program, *options, port=free_port()))
            nodes.append((server, bus))
        (master, _), (replica, bus) = nodes
        with closing(master.client()) as one, closing(replica.client()) as two:
            one.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            one.execute_command("CLUSTER", "MEET", "127.0.0.1", replica.port, bus)
            identity = one.execute_command("CLUSTER", "MYID")
            until(
                lambda: identity in two.execute_command("CLUSTER", "NODES"),
                "the nodes to know one another",
            )
            two.execute_command("CLUSTER", "REPLICATE", identity)
            until(lambda: replicates(replica), "the replica")
            until(
                lambda: all(
                    b"cluster_state:ok" in client.execute_command("CLUSTER", "INFO")
                    for client in (one, two)
                ),
                "the cluster to be complete",
            )
        yield master, replica


def test_in_a_cluster(program: str) -> None:
    with cluster(program) as (master, replica):
        url = f"redis+cluster://127.0.0.1:{replica.port},127.0.0.1:{master.port}?prefix=x"
        place = Place(url, shared=True)
        with opened(place) as (one, its), opened(place) as (other, others):
            other.position()
            put(one, "a", b"1", b"2")
            with closing(replica.client()) as client:
                client.execute_command("CLUSTER", "FAILOVER")
            until(lambda: role(replica) == "master", "the replica to be the master")
            after = put_when_possible(one, "a", b"3").first
            for listener in (its, others):
                listener.wait_for(after)
                assert listener.order == [1, 2, after]
                assert len(listener.started_at) == 1
            assert after > 1_000_000_000
            history = other.history(query("a", after=1))
            assert (numbers(history.entries), history.missing) == ([2, after], [])


def test_a_replica_without_the_last_writes_that_a_sentinel_names(tmp_path: Path) -> None:
    program = redis_server.redis()
    with ExitStack() as stack:
        master, replica = (
            stack.enter_context(redis_server.running(program, *OPTIONS, port=free_port()))
            for _ in range(2)
        )
        with closing(replica.client()) as client:
            client.execute_command("REPLICAOF", "127.0.0.1", master.port)
        until(lambda: replicates(replica), "the replica")
        port, watch = stack.enter_context(sentinel(program, master.port, tmp_path))
        place = Place(f"redis+sentinel://127.0.0.1:{port}/main?prefix=x", shared=True)
        with opened(place) as (one, its), opened(place) as (other, others):
            other.position()
            put(one, "a", b"1", b"2")
            with closing(master.client()) as client:
                assert client.wait(1, 10_000) == 1
            with closing(replica.client()) as client:
                # What comes after it never reaches the replica.
                client.execute_command("REPLICAOF", "127.0.0.1", "1")
            lost = put(one, "a", b"lost").first
            others.wait_for(lost)
            master.freeze()  # and nobody knows whether it comes back
            with closing(replica.client()) as client:
                client.execute_command("REPLICAOF", "NO", "ONE")
            watch.execute_command("SENTINEL", "REMOVE", "main")
            watch.execute_command("SENTINEL", "MONITOR", "main", "127.0.0.1", replica.port, 1)
            after = put_when_possible(one, "a", b"new", seconds=30.0)
            assert after.epoch != its.started_at[0][0]
            until(lambda: len(others.started_at) == 2, "the other process to begin again")
            others.wait_for(after.first)
            assert its.order == others.order == [1, 2, lost, after.first]
            # A client that has seen the lost event may have missed others.
            history = other.history(query("a", after=lost))
            assert history.missing == [Missing(Pattern.parse("a"), 1, after.first)]
            assert numbers(other.history(query("a")).entries) == [1, 2, after.first]
