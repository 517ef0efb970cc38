"""The cable between a machine and a server, which a test cuts, slows down and repairs.

It forwards TCP connections. A forwarder can't keep a connection from being opened; for that there
are network namespaces, see `tests.live.kit.namespaces`.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from dataclasses import dataclass

from tests.scripted_upstream import cut, listening


@dataclass(eq=False)
class _Forwarded:
    """One connection, and what has become of it."""

    client: socket.socket
    server: socket.socket
    cut: bool = False
    forgotten: bool = False


class Link:
    """Forwards every connection to a server, until the block is left.

    Args:
        target: the server's port; may be set to that of another server, for new connections.
        host: its address.
    """

    def __init__(self, target: int, host: str = "127.0.0.1") -> None:
        self.target = target
        self.host = host
        self.port = 0
        #: How many connections it has begun to forward.
        self.connections = 0
        self._changed = threading.Condition()
        self._open: set[_Forwarded] = set()
        self._is_cut = False
        self._drops_requests = False
        self._drops_answers = False
        self._delay = 0.0
        self._rate = 0.0
        self._ended = False
        self._listening = contextlib.ExitStack()

    def __enter__(self) -> Link:
        self.port = self._listening.enter_context(listening(self._serve, cut, 10))
        return self

    def __exit__(self, *raised: object) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._listening.close()

    # -- what a test does to it --------------------------------------------------------------------

    def repair(self) -> None:
        """Forward everything again, at once; what was held back is forwarded now, as TCP does."""
        with self._changed:
            self._is_cut = self._drops_requests = self._drops_answers = False
            self._delay = self._rate = 0.0
            self._changed.notify_all()

    def slow_down(self, delay: float = 0.0, rate: float = 0.0) -> None:
        """Forward later.

        Args:
            delay: by so many seconds, in both directions.
            rate: so many bytes a second, in each direction; 0 is as many as there are.
        """
        with self._changed:
            self._delay, self._rate = delay, rate

    def reset(self) -> None:
        """End all connections with a RST; new ones are forwarded."""
        with self._changed:
            connections = list(self._open)
            for each in connections:
                each.cut = True
            self._changed.notify_all()
        for each in connections:
            for end in (each.client, each.server):
                _reset(end)

    def cut(self) -> None:
        """End all connections with a RST, and new ones as well."""
        with self._changed:
            self._is_cut = True
        self.reset()

    def drop(self, *, answers_only: bool = False) -> None:
        """Be a black hole: forward nothing, not even that a connection has ended.

        Args:
            answers_only: whether the server still gets what clients send.
        """
        with self._changed:
            self._drops_requests = not answers_only
            self._drops_answers = True

    def forget(self) -> None:
        """Be a black hole for the connections that are open, for good; new ones are forwarded.

        Firewalls do so, and routers that are started again.
        """
        with self._changed:
            for each in self._open:
                each.forgotten = True

    # -- forwarding --------------------------------------------------------------------------------

    def _serve(self, client: socket.socket) -> None:
        client.settimeout(None)
        if self._is_cut:
            _reset(client)
            return
        with client, contextlib.suppress(OSError):
            self._wait(None, answers=False)
            with socket.create_connection((self.host, self.target), timeout=20) as server:
                server.settimeout(None)
                server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                # As browsers do, but sooner: if a server gives a client up while a cable is out,
                # the client gets to know of it only if it asks.
                server.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL):
                    server.setsockopt(socket.IPPROTO_TCP, option, 1)
                connection = _Forwarded(client, server)
                with self._changed:
                    self._open.add(connection)
                    self.connections += 1
                try:
                    answers = threading.Thread(target=self._forward, args=(connection, True))
                    answers.start()
                    self._forward(connection, False)
                    answers.join()
                finally:
                    with self._changed:
                        self._open.discard(connection)

    def _forward(self, connection: _Forwarded, answers: bool) -> None:
        """Forward one direction, to its end; then end the other one too."""
        source, target = connection.client, connection.server
        if answers:
            source, target = target, source
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                time.sleep(self._delay + (len(piece) / self._rate if self._rate else 0.0))
                self._wait(connection, answers)
                target.sendall(piece)
        with contextlib.suppress(OSError):
            self._wait(connection, answers)
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _wait(self, connection: _Forwarded | None, answers: bool) -> None:
        """Wait while nothing is forwarded; raises OSError if nothing ever will be."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._over(connection) or self._passes(connection, answers)
            )
            if self._over(connection):
                raise ConnectionAbortedError

    def _over(self, connection: _Forwarded | None) -> bool:
        return self._ended or (connection is not None and connection.cut)

    def _passes(self, connection: _Forwarded | None, answers: bool) -> bool:
        if self._over(connection) or (connection is not None and connection.forgotten):
            return False
        return not (self._drops_answers if answers else self._drops_requests)


def _reset(connection: socket.socket) -> None:
    """Close with a RST."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # The thread that waits in recv() wakes: while it waits, closing would send nothing.
        connection.shutdown(socket.SHUT_RD)
        connection.close()
