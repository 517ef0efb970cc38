"""An HTTP proxy as companies have them: tunnels by CONNECT, and requests that it passes on."""

from __future__ import annotations

import contextlib
import re
import select
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.scripted_upstream import server_side, shutdown

__all__ = ["Gateway", "gateway"]

PATIENCE = 30.0
_REQUEST = re.compile(rb"([A-Z]+) (?:http://)?([^:/ ]+):(\d+)")


@dataclass
class Gateway:
    """What it has seen.

    Attributes:
        url: its address.
        asked: the first lines of the connections' first requests.
    """

    url: str
    asked: list[str] = field(default_factory=list)

    def serve(self, client: socket.socket, opened: list[socket.socket]) -> None:
        """One connection, until either side ends it."""
        with client, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                piece = client.recv(65_536)
                if not piece:
                    return
                head += piece
            self.asked.append(head.partition(b"\r\n")[0].decode())
            found = _REQUEST.match(head)
            assert found, head
            with socket.create_connection((found[2].decode(), int(found[3])), PATIENCE) as server:
                opened.append(server)
                if found[1] == b"CONNECT":
                    client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                else:
                    server.sendall(head)
                _relay(client, server)


def _relay(client: socket.socket, server: socket.socket) -> None:
    others = {client: server, server: client}
    while True:
        ready = [each for each in others if isinstance(each, ssl.SSLSocket) and each.pending()]
        for each in ready or select.select([*others], [], [])[0]:
            piece = each.recv(65_536)
            if not piece:
                return
            others[each].sendall(piece)


@contextlib.contextmanager
def gateway(tls: ssl.SSLContext | None = None) -> Iterator[Gateway]:
    """The proxy, until the end of the block.

    Args:
        tls: where it is to be spoken to over TLS.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    scheme = "http" if tls is None else "https"
    seen = Gateway(f"{scheme}://127.0.0.1:{listener.getsockname()[1]}")
    threads: list[threading.Thread] = []
    opened: list[socket.socket] = []

    def accept() -> None:
        with contextlib.suppress(OSError):  # the listener was closed
            while True:
                client, _ = listener.accept()
                client.settimeout(PATIENCE)
                if tls is not None:
                    client = server_side(client, tls)
                opened.append(client)
                threads.append(threading.Thread(target=seen.serve, args=(client, opened)))
                threads[-1].start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield seen
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join(PATIENCE)
        for each in opened:
            with contextlib.suppress(OSError):  # closed already
                shutdown(each, socket.SHUT_RDWR)
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a connection through the proxy was left open"
