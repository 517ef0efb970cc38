"""What accepts connections, on gevent's server."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

import gevent
import gevent.socket
import pytest
from gevent.event import Event as Signal

from sseflask.transport.gunicorn.connection_pool import ConnectionPool
from sseflask.transport.gunicorn.connection_server import ClientSocket, Listener

SECONDS = 10.0


def test_no_more_connections_are_accepted_than_the_pool_may_have() -> None:
    listening = gevent.socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    name = listening.getsockname()
    ends = [Signal(), Signal()]
    accepted: list[Any] = []

    def handle(client: Any, address: Any) -> None:
        number = len(accepted)
        accepted.append((client, address))
        assert ends[number].wait(SECONDS)
        client.close()

    def wait_until_accepted(count: int) -> None:
        with gevent.Timeout(SECONDS):
            while len(accepted) < count:
                gevent.sleep(0.001)

    pool = ConnectionPool(1)
    listener = Listener(listening, handle, pool)
    listener.start()
    with (
        socket.create_connection(name, timeout=SECONDS) as first,
        socket.create_connection(name, timeout=SECONDS) as second,
    ):
        wait_until_accepted(1)
        gevent.sleep(0.02)
        assert len(accepted) == 1
        (client, address) = accepted[0]
        assert type(client) is ClientSocket
        assert address == first.getsockname()
        ends[0].set()
        wait_until_accepted(2)
        assert accepted[1][1] == second.getsockname()
        listener.close()
        ends[1].set()
        assert pool.join(SECONDS)
    assert not listener.started


@pytest.mark.parametrize("room", [2, 5])
def test_what_the_kernel_has_queued_is_accepted_before_the_close(room: int) -> None:
    """If there is room; it is many more than gevent accepts in one turn of the loop."""
    listening = gevent.socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    name = listening.getsockname()

    def handle(client: Any, address: Any) -> None:
        client.sendall(repr(address).encode())
        client.close()

    pool = ConnectionPool(room)
    listener = Listener(listening, handle, pool)
    listener.max_accept = 1
    listener.start()
    with contextlib.ExitStack() as stack:
        # The loop does not run meanwhile.
        clients = [
            stack.enter_context(socket.create_connection(name, timeout=SECONDS)) for _ in range(5)
        ]
        assert len(pool) == 0
        listener.accept_queued()
        listener.close()
        assert pool.join(SECONDS)
        for client in clients[:room]:
            assert client.recv(100) == repr(client.getsockname()).encode()
        for client in clients[room:]:
            with pytest.raises(ConnectionResetError):
                client.recv(100)
