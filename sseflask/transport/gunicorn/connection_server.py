"""Accepts a worker's connections and serves them, with a greenlet and without one.

Their sockets are read and written as their `ClientConnection` says.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import gevent
import gevent.socket
import gevent.ssl
from gevent.server import StreamServer
from gunicorn.sock import ssl_context

from sseflask.transport.detached.registry import DetachedStreams
from sseflask.transport.gunicorn import access_log
from sseflask.transport.gunicorn.client_connection import HEAD_SECONDS, ClientConnection
from sseflask.transport.gunicorn.connection_pool import ConnectionLimit, ConnectionPool

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from sseflask.transport.detached.group import DetachedStream
    from sseflask.transport.gunicorn.server_response import ServerResponse


log = logging.getLogger("sseflask")

#: Connections accepted in one turn of the loop; gevent's own 100 would take it 60 ms and more.
_ACCEPT = 4


class ClientSocket(gevent.socket.socket):
    """A client's socket. Its ``connection`` sets its timeouts; ``None`` for none."""

    __slots__ = ("connection",)

    connection: ClientConnection | None

    def recv(self, *args: Any) -> bytes:
        if len(args) > 1 or self.connection is None:
            return super().recv(*args)
        return self.connection.receive(super().recv, *args)

    def send(self, data: Any, flags: int = 0, timeout: Any = None) -> int:
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
        if flags or self.connection is None:
            data: bytes = super().recv(buflen, flags)
            return data
        return self.connection.receive(super().recv, buflen)

    def send(self, data: Any, flags: int = 0, timeout: Any = None) -> int:  # noqa: ARG002  # the base's signature
        if self.connection is None:
            sent: int = super().send(data, flags)
            return sent
        return self.connection.send_in_time(super().send, data)


class Listener(StreamServer):
    """Accepts connections as `ClientSocket`, as many as a pool may have.

    Overrides `full`, `do_read` and `do_handle` of gevent's server. gevent asks `full` before each
    connection, and stops accepting if it is. Its own `do_read` makes sockets of gevent's class, and
    its `do_handle` keeps two calls more on the stack of each stream, a KiB. If gevent no longer
    called ours, it would accept without bound, or sockets without deadlines:
    `tests/unit/transport/gunicorn/test_connection_server.py`.

    ``handle`` is called with ``arguments``, each client's socket and address, in a greenlet of the
    pool. It closes the socket.
    """

    def __init__(
        self, listener: Any, handle: Callable[..., object], pool: ConnectionPool, *arguments: Any
    ) -> None:
        super().__init__(listener, handle=handle)
        self._connections = pool
        self._call = (handle, *arguments)

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

    def do_handle(self, *accepted: Any) -> None:
        """Serve a connection."""
        self._connections.spawn(*self._call, *accepted)

    def accept_queued(self) -> None:
        """Accept the connections that the kernel has accepted already, if there is room.

        When a listener is closed, the kernel resets those that are left in its queue, although
        their clients may have sent a request.
        """
        with contextlib.suppress(OSError):
            while not self.full() and (accepted := self.do_read()):
                self.do_handle(*accepted)


def shake_hands(context: Any, client: Any, limit: ConnectionLimit) -> ClientTLSSocket | None:
    """Begin TLS on a connection; ``None`` if the client did not do its part: it is closed.

    Blocks, as long as a request's head may take. The ``sslsocket_class`` of gunicorn's context is
    `ClientTLSSocket`.
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
    except gevent.GreenletExit:
        client.close()
        raise
    finally:
        connection.close()


class _ListenerName:
    """All that gunicorn asks of a listener to serve a connection; outlives the listener."""

    def __init__(self, listener: Any) -> None:
        name = listener.getsockname()
        self.getsockname = lambda: name


class ConnectionServer:
    """The connections of one worker, whose `handle` serves them. The loop's thread only."""

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self._listeners: list[Listener] = []
        self.pool = ConnectionPool(worker.worker_connections)
        self.pool.limit.provide_gauges()
        self.detached = self.pool.limit.detached = DetachedStreams.current()
        self.detached.table.on_end = self._log_end
        self.detached.table.on_close = self.pool.release
        self.detached.table.idle.seconds = worker.cfg.keepalive
        self.detached.table.idle.go_on = self._go_on

    def start_accepting(self) -> None:
        """Accept connections on all the worker's sockets. Never blocks."""
        cfg = self._worker.cfg
        for socket in self._worker.sockets:
            socket.setblocking(True)
            name = _ListenerName(socket)
            if cfg.is_ssl:
                context = ssl_context(cfg)
                context.sslsocket_class = ClientTLSSocket
                listener = Listener(socket, self._handle_tls, self.pool, name, context)
            else:
                listener = Listener(socket, self._handle, self.pool, name)
            # One at a time, so that one worker does not take them all. And a few at a time if it is
            # alone: clients that are connected wait for the requests of all of one turn.
            listener.max_accept = 1 if cfg.workers > 1 else _ACCEPT
            listener.start()
            self._listeners.append(listener)

    def stop_accepting(self) -> None:
        """Close the sockets that listen, and soon the connections without a request.

        What has connected before is served. Between the last look and the close there is no other
        code of this process; a connection that comes in these microseconds is reset.
        """
        for listener in self._listeners:
            listener.accept_queued()
            listener.close()
        self.pool.limit.close_silent_soon()

    def adopt(
        self,
        stream: DetachedStream,
        ends_at: float,
        server: ServerResponse,
        environ: WSGIEnvironment,
    ) -> None:
        """See `server_response.Adopt`."""
        self.pool.hand_over()
        self.detached.adopt(stream, ends_at, server.next_request)
        if not server.returned:  # otherwise gunicorn logs the request
            stream.log_entry = access_log.prepare(self._worker.log, server.response, environ)

    def _log_end(self, stream: DetachedStream, sent: int) -> None:
        if stream.log_entry is not None:
            seconds = time.monotonic() - stream.began
            access_log.write(self._worker.log, stream.log_entry, seconds, sent)

    def _handle_tls(self, name: _ListenerName, context: Any, client: Any, address: Any) -> None:
        secured = shake_hands(context, client, self.pool.limit)
        if secured is not None:
            self._handle(name, secured, address)

    def _handle(self, name: _ListenerName, client: Any, address: Any, unread: bytes = b"") -> None:
        keepalive = self._worker.cfg.keepalive
        greenlet: Any = gevent.getcurrent()
        while True:
            connection = ClientConnection(client, self.pool.limit, keepalive, unread, name)
            client.connection = greenlet.connection = connection
            try:
                self._worker.handle(name, client, address)
            finally:
                connection.close()
                # Each has the other: the request would otherwise wait for the garbage collector.
                client.connection = None
            del connection, client  # nothing of them is kept while no other connection comes
            arguments = self.pool.next()
            if arguments is None:
                return
            name, client, address, *rest = arguments
            unread = rest[0] if rest else b""

    def _go_on(self, descriptor: int, name: _ListenerName, unread: bytes) -> None:
        """Serve the next request of a connection that has had no greenlet."""
        client = ClientSocket(fileno=descriptor)
        try:
            address = client.getpeername()
        except OSError:  # the client has gone
            client.close()
            self.pool.release()
        else:
            self.pool.respawn(self._handle, name, client, address, unread)
