"""A client that never reads is cut; the others do not notice."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tests.live.kit.clients import open_stream
from tests.live.kit.connection import Connection
from tests.live.kit.publishing import publish, publish_all
from tests.live.kit.servers import Server
from tests.live.kit.services import service
from tests.live.kit.sockets import inode
from tests.live.kit.stores import Store, on_every_store
from tests.live.kit.subscribers import Subscriber
from tests.live.kit.swarm import Swarm
from tests.live.kit.waiting import until

pytestmark = on_every_store


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, store: Store) -> Iterator[Server]:
    """One worker, and so much history that nothing is lost."""
    directory = tmp_path_factory.mktemp("slow")
    settings = {"SSEFLASK_HEARTBEAT": "0.5", "SSEFLASK_HISTORY_EVENTS": "100000"}
    with service(directory, settings={**settings, **store(directory)}) as started:
        yield started


def served(server: Server, port: int) -> bool:
    """Whether its worker still has the connection from this port."""
    return inode(server.port, port) != 0


@pytest.mark.parametrize("size", [30_000, 200], ids=["large events", "small events"])
def test_a_client_that_never_reads(server: Server, channel: str, size: int) -> None:
    path = f"/channels/{channel}"
    with (
        Swarm(server.port, [Subscriber(path) for _ in range(20)]) as swarm,
        open_stream(server, path, receive_buffer=4096) as slow,
    ):
        swarm.wait_until_connected()
        begins = slow.head.headers["last-event-id"]
        port = slow.connection.socket.getsockname()[1]
        assert served(server, port)
        data: list[str] = []
        ids: list[str] = []
        batch = max(1, min(1000, 300_000 // size))

        def cut() -> bool:
            more = [f"{len(data) + n} {'x' * size}" for n in range(batch)]
            data.extend(more)
            ids.extend(publish_all(server, channel, more))
            swarm.wait_for(lambda each: each.last_id == ids[-1], "has the last event")
            return not served(server, port)

        until(cut, "the slow client is cut", seconds=60)
        for subscriber in swarm.subscribers:
            assert subscriber.data() == data, subscriber.summary()[:500]
            assert (subscriber.connected, subscriber.truncated) == (1, 0)
        # What it has got is a beginning; from there it can go on.
        received: list[str | None] = []
        with contextlib.suppress(AssertionError, ConnectionResetError):
            for event in slow:
                begins = event.id or begins
                received.append(event.data)
        assert received == data[: len(received)]
        assert len(received) < len(data)
        with open_stream(server, path, headers={"Last-Event-ID": begins}) as resumed:
            received += resumed.data(len(data) - len(received))
            assert received == data
            last = publish(server, channel, "last")
            assert resumed.next().id == last


@pytest.mark.parametrize("size", [3_000, 30_000, 300_000])
def test_clients_that_never_read_their_history(server: Server, channel: str, size: int) -> None:
    """They are cut as well, and of what waits for them only a little is in memory at a time,
    however large the events are."""
    path = f"/channels/{channel}?last_event_id=earliest"
    (worker,) = server.workers()
    ids: list[str] = []
    while len(ids) * size < 45_000_000:
        ids += publish_all(server, channel, ["x" * size] * min(1000, 900_000 // size))
    before = most = worker.memory_info().rss
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(Connection(server, 4096)) for _ in range(20)]
        ports = {connection.socket.getsockname()[1] for connection in slow}
        for connection in slow:
            connection.request(path)
        for connection in slow:
            assert connection.head().status == 200

        def cut() -> bool:
            nonlocal most
            most = max(most, worker.memory_info().rss)
            return not any(served(server, port) for port in ports)

        until(cut, "all are cut", seconds=60)
    with open_stream(server, path) as stream:
        assert [stream.next().id for _ in ids] == ids
    # 45 MB wait for each of the 20. 4 MB for each, and some for the allocator, are plenty.
    assert most - before < 120_000_000, f"{(most - before) // 1_000_000} MB more"
