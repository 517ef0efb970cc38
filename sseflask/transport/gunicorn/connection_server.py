"""Accepts a worker's connections and serves them, with a greenlet and without one."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

import gevent
from gunicorn.sock import ssl_context

from sseflask.transport.detached.registry import DetachedStreams
from sseflask.transport.gunicorn import access_log
from sseflask.transport.gunicorn.client_connection import ClientConnection
from sseflask.transport.gunicorn.client_socket import (
    ClientSocket,
    ClientTLSSocket,
    Listener,
    shake_hands,
)
from sseflask.transport.gunicorn.connection_pool import ConnectionPool

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from sseflask.transport.detached.group import DetachedStream
    from sseflask.transport.gunicorn.response import ServerResponse

__all__ = ["ConnectionServer"]

#: Connections accepted in one turn of the loop; gevent's own 100 would take it 60 ms and more.
_ACCEPT = 4


class _ListenerName:
    """All that gunicorn asks of a listener to serve a connection; outlives the listener."""

    def __init__(self, listener: Any) -> None:
        self._name = listener.getsockname()

    def getsockname(self) -> Any:
        return self._name


class ConnectionServer:
    """The connections of one worker. The loop's thread only.

    Args:
        worker: calls its `handle` for each connection, in a greenlet.

    Attributes:
        pool: the connections.
        detached: the streams that go on without a greenlet.
    """

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
            handle = partial(self._handle, name)
            if cfg.is_ssl:
                context = ssl_context(cfg)
                context.sslsocket_class = ClientTLSSocket
                handle = partial(self._handle_tls, name, context)
            listener = Listener(socket, handle, self.pool)
            # One at a time, so that one worker does not take them all. And a few at a time if it is
            # alone: clients that are connected wait for the requests of all of one turn.
            listener.max_accept = 1 if cfg.workers > 1 else _ACCEPT
            listener.start()
            self._listeners.append(listener)

    def stop_accepting(self) -> None:
        """Close the sockets that listen, and soon the connections without a request."""
        for listener in self._listeners:
            listener.close()
        self.pool.limit.close_silent_soon()

    def adopt(
        self,
        stream: DetachedStream,
        ends_at: float,
        server: ServerResponse,
        environ: WSGIEnvironment,
    ) -> None:
        """Go on with a stream without the calling greenlet. See `response.Adopt`."""
        self.pool.hand_over()
        self.detached.adopt(stream, ends_at)
        if not server.returned:  # otherwise gunicorn logs the request
            stream.log_entry = access_log.prepare(self._worker.log, server.response, environ)

    def _log_end(self, stream: DetachedStream, sent: int) -> None:
        if stream.log_entry is not None:
            seconds = time.monotonic() - stream.began
            access_log.write(self._worker.log, stream.log_entry, seconds, sent)

    def _handle_tls(self, name: _ListenerName, context: Any, client: Any, address: Any) -> None:
        """Shake hands, in the time that a request's head has as well, then serve the client."""
        secured = shake_hands(context, client, self.pool.limit)
        if secured is not None:
            self._handle(name, secured, address)

    def _handle(self, name: _ListenerName, client: Any, address: Any, unread: bytes = b"") -> None:
        keepalive = self._worker.cfg.keepalive
        connection = ClientConnection(client, self.pool.limit, keepalive, unread, name)
        greenlet: Any = gevent.getcurrent()
        client.connection = greenlet.connection = connection
        try:
            self._worker.handle(name, client, address)
        finally:
            connection.close()

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
