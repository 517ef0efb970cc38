"""Connections that wait for their client."""

from __future__ import annotations

import socket
import ssl

import gevent
import gevent.socket
import gevent.ssl

from sseflask.transport.places import Places
from sseflask.transport.visit import ClientSocket, shake_hands, tls_context


def test_a_handshake_that_does_not_come_makes_room() -> None:
    """TLS takes the descriptor out of the socket that was accepted."""
    ours, client = socket.socketpair()
    full = Places(1, lambda: 0)
    context = tls_context(gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    accepted = ClientSocket(fileno=ours.detach())
    with client:
        handshake = gevent.spawn(shake_hands, context, accepted, full)
        assert handshake.get(timeout=5) is None
        while client.recv(100):
            pass  # TLS says why it ends
    assert not full.waiting
