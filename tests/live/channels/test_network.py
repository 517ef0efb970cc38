"""Peers that vanished without a packet; needs root, for a network of its own."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.kit.connection import fetch
from tests.live.kit.namespaces import Host, network_of
from tests.live.kit.publishing import LIBRARY
from tests.live.kit.servers import GUNICORN, WORKER, Server, free_port, running
from tests.live.kit.services import logs
from tests.live.kit.subscribers import Subscriber
from tests.live.kit.swarm import Swarm
from tests.live.kit.waiting import until

#: Opens this many subscriptions, prints a line, and holds them until its input ends.
CLIENT = """
import socket, sys
address, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
held = [socket.create_connection((address, port), timeout=20) for _ in range(count)]
for each in held:
    each.sendall(b"GET /subscribe?c=a HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
for each in held:
    assert each.recv(65536).startswith(b"HTTP/1.1 200 "), "no stream"
print("subscribed", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def host() -> Iterator[Host]:
    with network_of(1) as (_, (made,)):
        yield made


@contextlib.contextmanager
def peer(host: Host, port: int, count: int) -> Iterator[None]:
    """A client on the other host, with this many subscriptions."""
    command = [*host.prefix, sys.executable, "-c", CLIENT]
    with subprocess.Popen(
        [*command, host.network.here, str(port), str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"subscribed\n"
            yield
        finally:
            process.kill()


@contextlib.contextmanager
def library(directory: Path, *worker: str) -> Iterator[Server]:
    """The small application, to be reached from the other host too."""
    port = free_port()
    command = [*GUNICORN, *worker, "-b", f"0.0.0.0:{port}", "-w", "1", LIBRARY]
    changes = {**logs(directory), "PROBE_HEARTBEAT": "0.3"}
    with running("gunicorn-library", command, port, directory, changes) as server:
        yield server
    server.assert_log_is_clean()


WORKERS = {
    "our worker": ("-k", WORKER),
    "gevent": ("-c", "sseflask/gunicorn_conf.py", "-k", "gevent"),
}


@pytest.mark.parametrize("worker", WORKERS.values(), ids=WORKERS.keys())
@pytest.mark.parametrize("publishing", [False, True], ids=["silence", "events"])
def test_peers_that_have_vanished_are_reaped(
    tmp_path: Path, host: Host, worker: tuple[str, ...], publishing: bool
) -> None:
    """The cable is pulled: no FIN, no RST, no acknowledgement. The others notice nothing."""
    with (
        library(tmp_path, *worker) as server,
        Swarm(server.port, [Subscriber("/subscribe?c=a") for _ in range(5)]) as swarm,
    ):
        swarm.wait_until_connected()
        (process,) = server.workers()

        def descriptors() -> int:
            return process.num_fds()

        before = descriptors()
        with peer(host, server.port, 20):
            until(lambda: descriptors() >= before + 20, "20 more descriptors")
            host.pull_out("clients")
            sent = 0

            def reaped() -> bool:
                nonlocal sent
                if publishing:
                    fetch(server, "/publish/a", method="POST", body=b"%d" % sent)
                    sent += 1
                return descriptors() <= before + 1

            until(reaped, "the vanished are forgotten", seconds=40, pause=0.1)
        swarm.wait_for(lambda each: len(each.events) == sent, "has every event")
        for subscriber in swarm.subscribers:
            assert subscriber.data() == [str(n) for n in range(sent)]
            assert (subscriber.connected, subscriber.truncated) == (1, 0)
