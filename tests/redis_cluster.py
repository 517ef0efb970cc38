"""Redis servers that belong together: clusters, and masters with replicas that Sentinels name."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from redis import Redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS as SLOTS
from redis.crc import key_slot
from redis.exceptions import RedisError

from tests import redis_server
from tests.live.kit.servers import free_port
from tests.live.kit.waiting import until
from tests.redis_server import RedisServerProcess

#: Nothing is saved, and a replica is served at once.
OPTIONS = ("--save", "", "--repl-diskless-sync-delay", "0")

#: Of a node of a cluster.
CLUSTERED = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000", *OPTIONS)


def do(server: RedisServerProcess, *command: Any) -> Any:
    """One command, on a connection of its own."""
    with closing(server.client()) as client:
        return client.execute_command(*command)


def role(server: RedisServerProcess) -> str:
    found: str = do(server, "INFO", "replication")["role"]
    return found


def fail_over(replica: RedisServerProcess) -> None:
    """Make the replica of a cluster the master, and wait until it is.

    The server gives an election up after 5 s, such as one that a busy machine has held up, and
    wants to be asked again.
    """
    for _ in range(3):
        do(replica, "CLUSTER", "FAILOVER")
        with suppress(AssertionError):
            until(lambda: role(replica) == "master", "the replica to be the master", seconds=6)
            return
    raise AssertionError("no election has made the replica the master")


def replicates(server: RedisServerProcess) -> bool:
    return bool(do(server, "INFO", "replication").get("master_link_status") == "up")


def follow(replica: RedisServerProcess, master: RedisServerProcess) -> None:
    """Make a server a replica, and wait until it has what its master has."""
    do(replica, "REPLICAOF", "127.0.0.1", master.port)
    until(lambda: replicates(replica), "the replica to have everything")


class Cluster:
    """Masters, which share the slots, and one replica of the one with a prefix's keys.

    Attributes:
        masters: the first one has the keys of `prefix`.
        replica: of the first one.
        url: of a store whose keys begin with `prefix`.
    """

    def __init__(self, nodes: Sequence[RedisServerProcess], prefix: str) -> None:
        *self.masters, self.replica = nodes
        self.prefix, self.slot = prefix, key_slot(prefix.encode())
        first, last = self.masters[0].port, self.masters[-1].port
        self.url = f"redis+cluster://127.0.0.1:{last},127.0.0.1:{first}?prefix={prefix}"

    def place(self, prefix: str) -> str:
        """The URL of another store. Its keys are in the same slot if its prefix has a tag."""
        return self.url.replace(f"={self.prefix}", f"={prefix}")

    def keys(self, node: RedisServerProcess) -> list[bytes]:
        """The keys of the slot that a node has."""
        found: list[bytes] = do(node, "CLUSTER", "GETKEYSINSLOT", self.slot, 10_000)
        return found

    def begin_to_move(self, source: RedisServerProcess, target: RedisServerProcess) -> None:
        """Let the slot move: keys can be moved one by one from here on."""
        do(target, "CLUSTER", "SETSLOT", self.slot, "IMPORTING", do(source, "CLUSTER", "MYID"))
        do(source, "CLUSTER", "SETSLOT", self.slot, "MIGRATING", do(target, "CLUSTER", "MYID"))

    def move_keys(
        self, source: RedisServerProcess, target: RedisServerProcess, keys: Sequence[bytes]
    ) -> None:
        do(source, "MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)

    def end_move(self, source: RedisServerProcess, target: RedisServerProcess) -> None:
        """Move what is left, and let all know where the slot is."""
        while keys := self.keys(source):
            self.move_keys(source, target, keys)
        identity = do(target, "CLUSTER", "MYID")
        for node in (target, source, *self.masters):
            if role(node) == "master":
                do(node, "CLUSTER", "SETSLOT", self.slot, "NODE", identity)


def node_port() -> int:
    """A port for a node. The nodes talk to each other at a port that is higher by 10,000."""
    while True:
        port = free_port()
        with socket.socket() as bus, suppress(OSError, OverflowError):
            bus.bind(("127.0.0.1", port + 10_000))
            return port


@contextmanager
def cluster(program: str, masters: int = 1, prefix: str = "x") -> Iterator[Cluster]:
    """A cluster that works."""
    with ExitStack() as stack:
        nodes = [
            stack.enter_context(redis_server.running(program, *CLUSTERED, port=node_port()))
            for _ in range(masters + 1)
        ]
        made = Cluster(nodes, prefix)
        # In a ring that begins so that the first one has the keys of the prefix.
        share = -(-SLOTS // masters)
        place = made.slot // share
        for number, node in enumerate(made.masters):
            first = (place + number) % masters * share
            do(node, "CLUSTER", "ADDSLOTS", *range(first, min(first + share, SLOTS)))
            # Or two nodes may have the same epoch, and the slots of one.
            do(node, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in nodes[1:]:
            do(nodes[0], "CLUSTER", "MEET", "127.0.0.1", node.port)
        identity = do(nodes[0], "CLUSTER", "MYID")
        until(
            lambda: identity in do(made.replica, "CLUSTER", "NODES"), "the nodes to know each other"
        )
        do(made.replica, "CLUSTER", "REPLICATE", identity)
        until(lambda: replicates(made.replica), "the replica")
        # A failover needs the votes of masters that know the replica.
        until(
            lambda: all(
                b"cluster_state:ok" in do(each, "CLUSTER", "INFO")
                and b"slave " + identity in do(each, "CLUSTER", "NODES")
                for each in nodes
            ),
            "the cluster to be complete",
        )
        yield made


class Sentinel:
    """One that watches a master by the name ``main``.

    Args:
        port: its own.
        process: what runs.
    """

    def __init__(self, port: int, process: subprocess.Popen[bytes]) -> None:
        self.port, self.process = port, process
        self.url = f"redis+sentinel://127.0.0.1:{port}/main?prefix=x"

    def do(self, *command: Any) -> Any:
        with closing(Redis(port=self.port)) as client:
            return client.execute_command("SENTINEL", *command)

    def answers(self) -> bool:
        try:
            with closing(Redis(port=self.port)) as client:
                return bool(client.ping())
        except RedisError:
            return False

    def watch(self, server: RedisServerProcess) -> None:
        """Name another server."""
        self.do("REMOVE", "main")
        self.do("MONITOR", "main", "127.0.0.1", server.port, 1)


@contextmanager
def sentinel(
    program: str, directory: Path, master: RedisServerProcess, down_after: int = 60_000
) -> Iterator[Sentinel]:
    """A Sentinel that takes a master for lost after some milliseconds without an answer."""
    port = free_port()
    settings = directory / "sentinel.conf"
    settings.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {directory}\n"
        f"sentinel monitor main 127.0.0.1 {master.port} 1\n"
        f"sentinel down-after-milliseconds main {down_after}\n"
    )
    process = subprocess.Popen([program, str(settings), "--sentinel"], stdout=subprocess.DEVNULL)
    try:
        made = Sentinel(port, process)
        until(made.answers, "the Sentinel")
        yield made
    finally:
        process.kill()
        process.wait(20)


class Pair:
    """A master and its replica, as a Sentinel names them.

    Args:
        master: what it names at first.
    """

    def __init__(
        self, master: RedisServerProcess, replica: RedisServerProcess, sentinel: Sentinel
    ) -> None:
        self.master, self.replica, self.sentinel = master, replica, sentinel
        self.url = sentinel.url

    def part(self) -> None:
        """What comes after this never reaches the replica."""
        with closing(self.master.client()) as client:
            assert client.wait(1, 10_000) == 1
        do(self.replica, "REPLICAOF", "127.0.0.1", "1")

    def take_over(self) -> None:
        """The master is gone, with what the replica has not got."""
        self.master.stop()
        do(self.replica, "REPLICAOF", "NO", "ONE")
        self.sentinel.watch(self.replica)


@contextmanager
def paired(directory: Path, down_after: int = 60_000) -> Iterator[Pair]:
    program = redis_server.redis()
    with ExitStack() as stack:
        master, replica = (
            stack.enter_context(redis_server.running(program, *OPTIONS, port=free_port()))
            for _ in range(2)
        )
        follow(replica, master)
        watching = stack.enter_context(sentinel(program, directory, master, down_after))
        yield Pair(master, replica, watching)
