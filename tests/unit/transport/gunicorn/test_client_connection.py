"""Connections that wait for their client."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable

import gevent
import gevent.socket
import gevent.ssl
import pytest
import trustme
from gunicorn.http.errors import NoMoreData

from sseflask.transport.gunicorn.client_connection import ClientConnection
from sseflask.transport.gunicorn.connection_pool import ConnectionLimit
from sseflask.transport.gunicorn.connection_server import ClientSocket, ClientTLSSocket, shake_hands


def full_limit() -> ConnectionLimit:
    limit = ConnectionLimit(1)
    limit.add()
    return limit


def test_a_handshake_that_does_not_come_makes_room() -> None:
    """TLS takes the descriptor out of the socket that was accepted."""
    ours, client = socket.socketpair()
    full = full_limit()
    context = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sslsocket_class = ClientTLSSocket
    accepted = ClientSocket(fileno=ours.detach())
    with client:
        handshake = gevent.spawn(shake_hands, context, accepted, full)
        assert handshake.get(timeout=5) is None
        while client.recv(100):
            pass  # TLS says why it ends
    assert not full.waiting


def test_a_silent_connection_over_tls_ends_without_an_alert() -> None:
    """To its client that would be a failure of TLS, and no end."""
    authority = trustme.CA()
    server = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.sslsocket_class = ClientTLSSocket
    authority.issue_cert("localhost").configure_cert(server)
    trusting = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(trusting)
    ours, theirs = (each.detach() for each in socket.socketpair())
    limit = ConnectionLimit(10)
    handshake = gevent.spawn(shake_hands, server, ClientSocket(fileno=ours), limit)
    plain = gevent.socket.socket(fileno=theirs)
    with trusting.wrap_socket(plain, server_hostname="localhost") as client:
        secured = handshake.get(timeout=5)
        assert secured is not None
        with secured:
            secured.connection = connection = ClientConnection(secured, limit, keepalive=5)
            gevent.spawn_later(0, connection.evict)
            with pytest.raises(NoMoreData):
                secured.recv(100)
        assert client.recv(100) == b""


@pytest.mark.parametrize("closing", [ConnectionLimit.make_room, ConnectionLimit._close_silent])
@pytest.mark.parametrize("sent", [b"GET ", b""])
def test_a_request_that_has_just_come_is_no_silence(
    sent: bytes, closing: Callable[[ConnectionLimit], None]
) -> None:
    """The worker is full, or about to end; its loop has not got to what a client has sent."""
    ours, client = socket.socketpair()
    full = full_limit()
    with client, ClientSocket(fileno=ours.detach()) as accepted:
        accepted.connection = connection = ClientConnection(accepted, full, keepalive=5)
        reading = gevent.spawn(accepted.recv, 100)
        gevent.sleep(0)
        assert connection.blocked
        client.sendall(sent)
        connection.since -= 1
        closing(full)
        assert connection.evicted is not bool(sent)
        if sent:
            assert reading.get(timeout=5) == sent
        else:
            with pytest.raises(NoMoreData):
                reading.get(timeout=5)
