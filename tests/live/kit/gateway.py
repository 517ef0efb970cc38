"""An HTTP proxy as companies have them: tunnels by CONNECT, and requests that it passes on."""

from __future__ import annotations

import contextlib
import re
import select
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.scripted_upstream import cut, listening

__all__ = ["Gateway", "gateway"]

PATIENCE = 30.0
_REQUEST = re.compile(rb"([A-Z]+) (?:http://)?([^:/ ]+):(\d+)")


@dataclass
class Gateway:
    """What it has seen.

    Attributes:
        url: its address.
        requests: the first lines of the connections' first requests.
    """

    url: str = ""
    requests: list[str] = field(default_factory=list)

    def serve(self, client: socket.socket) -> None:
        """One connection, until either side ends it."""
        with client, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                piece = client.recv(65_536)
                if not piece:
                    return
                head += piece
            self.requests.append(head.partition(b"\r\n")[0].decode())
            found = _REQUEST.match(head)
            assert found, head
            with socket.create_connection((found[2].decode(), int(found[3])), PATIENCE) as server:
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
        tls: how it is to be spoken to, if over TLS.
    """
    seen = Gateway()
    with listening(seen.serve, cut, PATIENCE, tls) as port:
        seen.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{port}"
        yield seen
