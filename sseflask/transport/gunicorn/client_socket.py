"""Sockets of clients: accepted, secured, and read and written as their `Visit` says."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import gevent
import gevent.socket
import gevent.ssl
from gevent.server import StreamServer

from sseflask.transport.gunicorn.client_deadlines import HEAD_SECONDS, Visit
from sseflask.transport.gunicorn.connection_limit import Places

__all__ = ["ClientSocket", "ClientTLSSocket", "Listener", "shake_hands", "tls_context"]

log = logging.getLogger("sseflask")


class ClientSocket(gevent.socket.socket):
    """A client's socket, whose reads and writes are those of a visit."""

    __slots__ = ("visit",)

    visit: Visit | None

    def recv(self, *args: Any) -> bytes:
        """As of any socket."""
        if len(args) > 1 or self.visit is None:
            return super().recv(*args)
        return self.visit.receive(super().recv, *args)

    def send(self, data: Any, flags: int = 0, timeout: Any = None) -> int:
        """As of any socket; a client that does not read has a deadline."""
        send: Any = super().send
        try:
            sent: int = send(data, flags, 0.0)
        except BlockingIOError:
            if self.visit is None or 0.0 in (timeout, self.timeout):
                raise
            return self.visit.wait_to_send(partial(_send, send, flags), data)
        return sent


def _send(send: Callable[[Any, int], int], flags: int, data: Any) -> int:
    return send(data, flags)


class ClientTLSSocket(gevent.ssl.SSLSocket):
    """The same for TLS."""

    visit: Visit | None = None

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """As of any socket."""
        if flags or self.visit is None:
            data: bytes = super().recv(buflen, flags)
            return data
        return self.visit.receive(super().recv, buflen)

    def send(self, data: Any, flags: int = 0, timeout: Any = None) -> int:  # noqa: ARG002  # the base's signature
        """As of any socket; a client that does not read has a deadline."""
        if self.visit is None:
            sent: int = super().send(data, flags)
            return sent
        return self.visit.wait_to_send(super().send, data)


class Listener(StreamServer):
    """Accepts connections as `ClientSocket`."""

    def do_read(self) -> Any:
        """Accept one, if there is one; as gevent's own does, which has no choice of the class."""
        listener: Any = self.socket
        try:
            descriptor, address = listener._accept()
        except BlockingIOError:
            if not listener.timeout:
                return None
            raise
        return (
            ClientSocket(listener.family, listener.type, listener.proto, fileno=descriptor),
            address,
        )


def shake_hands(context: Any, client: Any, places: Places) -> ClientTLSSocket | None:
    """Begin TLS on a connection. Blocks, as long as a request's head may take.

    Args:
        context: gunicorn's SSLContext, whose sockets are `ClientTLSSocket`.
        client: the socket.
        places: of the worker.

    Returns:
        the socket to go on with; ``None`` where the client did not do its part: it is closed.
    """
    visit = Visit(client, places, 0)
    try:
        with gevent.Timeout(HEAD_SECONDS), visit.waiting():
            secured: ClientTLSSocket = context.wrap_socket(client, server_side=True)
            return secured
    except (OSError, gevent.Timeout) as error:
        log.debug("a client did not finish the TLS handshake: %s", error)
        client.close()
        return None
    finally:
        visit.close()


def tls_context(context: Any) -> Any:
    """Have what a context wraps be `ClientTLSSocket`."""
    context.sslsocket_class = ClientTLSSocket
    return context
