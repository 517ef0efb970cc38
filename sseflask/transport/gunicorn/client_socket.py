"""Sockets of clients: accepted, secured, and read and written as their `ClientConnection` says."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import gevent
import gevent.socket
import gevent.ssl
from gevent.server import StreamServer

from sseflask.transport.gunicorn.client_connection import HEAD_SECONDS, ClientConnection
from sseflask.transport.gunicorn.connection_limit import ConnectionLimit
from sseflask.transport.gunicorn.connection_pool import ConnectionPool

__all__ = ["ClientSocket", "ClientTLSSocket", "Listener", "shake_hands"]

log = logging.getLogger("sseflask")


class ClientSocket(gevent.socket.socket):
    """A client's socket, whose connection says how long it blocks; ``None`` for as long as any."""

    __slots__ = ("connection",)

    connection: ClientConnection | None

    def recv(self, *args: Any) -> bytes:
        """Read, while the client sends in time."""
        if len(args) > 1 or self.connection is None:
            return super().recv(*args)
        return self.connection.receive(super().recv, *args)

    def send(self, data: Any, flags: int = 0, timeout: Any = None) -> int:
        """Send, while the client reads in time."""
        send: Any = super().send
        try:
            sent: int = send(data, flags, 0.0)
        except BlockingIOError:
            if self.connection is None or 0.0 in (timeout, self.timeout):
                raise
            return self.connection.send_in_time(partial(send, flags=flags), data)
        return sent


class ClientTLSSocket(gevent.ssl.SSLSocket):
    """The same for TLS."""

    connection: ClientConnection | None = None

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """Read, while the client sends in time."""
        if flags or self.connection is None:
            data: bytes = super().recv(buflen, flags)
            return data
        return self.connection.receive(super().recv, buflen)

    def send(self, data: Any, flags: int = 0, timeout: Any = None) -> int:  # noqa: ARG002  # the base's signature
        """Send, while the client reads in time."""
        if self.connection is None:
            sent: int = super().send(data, flags)
            return sent
        return self.connection.send_in_time(super().send, data)


class Listener(StreamServer):
    """Accepts connections as `ClientSocket`, as many as a pool may have.

    Overrides `full` and `do_read` of gevent's server, which asks the first before each connection,
    stops accepting if it is full, and has no choice of the second's class. If gevent called them no
    more, it would accept without bound, or sockets without deadlines:
    `tests/unit/transport/gunicorn/test_client_socket.py`.

    Args:
        listener: gevent's socket that listens.
        handle: called with each client's socket and address, in a greenlet of the pool.
        pool: the worker's.
    """

    def __init__(self, listener: Any, handle: Callable[..., object], pool: ConnectionPool) -> None:
        spawn: Any = pool.spawn
        super().__init__(listener, handle=handle, spawn=spawn)
        self._connections = pool

    def full(self) -> bool:
        """Whether to stop accepting, until the pool has room again."""
        return self._connections.is_full(self._accept_again)

    def _accept_again(self) -> None:
        if self.started:
            self.start_accepting()

    def do_read(self) -> Any:
        """Accept one connection, if there is one."""
        listener: Any = self.socket
        try:
            descriptor, address = listener._accept()  # accept() makes a socket of gevent's class
        except BlockingIOError:
            if not listener.timeout:
                return None
            raise
        return (
            ClientSocket(listener.family, listener.type, listener.proto, fileno=descriptor),
            address,
        )


def shake_hands(context: Any, client: Any, limit: ConnectionLimit) -> ClientTLSSocket | None:
    """Begin TLS on a connection. Blocks, as long as a request's head may take.

    Args:
        context: gunicorn's SSLContext; its ``sslsocket_class`` is `ClientTLSSocket`.
        client: the socket.
        limit: the worker's.

    Returns:
        the socket to go on with; ``None`` if the client did not do its part: it is closed.
    """
    connection = ClientConnection(client, limit, 0)
    connection.blocked = True
    limit.wait(connection)
    try:
        with gevent.Timeout(HEAD_SECONDS):
            secured: ClientTLSSocket = context.wrap_socket(client, server_side=True)
            return secured
    except (OSError, gevent.Timeout) as error:
        log.debug("a client did not finish the TLS handshake: %s", error)
        client.close()
        return None
    finally:
        connection.close()
