"""An HTTP/1.x connection that checks every byte it receives."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tests.live.kit.servers import Server

#: How long one read may take; only a failing test waits for all of it.
PATIENCE = 20.0


@dataclass(frozen=True)
class Head:
    """A response's status line and headers; names in lower case."""

    version: str
    status: int
    headers: dict[str, str]


class Connection:
    """One TCP connection that speaks just enough HTTP/1.x to be sure of every byte.

    Args:
        server: the server, or its port on 127.0.0.1.
        receive_buffer: SO_RCVBUF, for a client that is slow on purpose.
    """

    def __init__(self, server: Server | int, receive_buffer: int | None = None) -> None:
        port = server if isinstance(server, int) else server.port
        self.socket = socket.socket()
        self.socket.settimeout(PATIENCE)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            self.socket.connect(("127.0.0.1", port))
        except OSError:
            self.socket.close()
            raise
        self.port = port
        self.buffer = b""
        self.chunks = 0
        self.complete = False
        self._method = ""

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *raised: object) -> None:
        self.socket.close()

    def close(self) -> None:
        """An orderly close: the server gets a FIN."""
        self.socket.close()

    def reset(self) -> None:
        """A close that gives the server a RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def request(
        self,
        path: str,
        *,
        method: str = "GET",
        version: str = "1.1",
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> None:
        """Send a request; a body goes with its Content-Length."""
        fields = {"Host": f"127.0.0.1:{self.port}", **(headers or {})}
        if body is not None and "Transfer-Encoding" not in fields:
            fields["Content-Length"] = str(len(body))
        self._method = method
        lines = [f"{method} {path} HTTP/{version}", *(f"{k}: {v}" for k, v in fields.items())]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode() + (body or b""))

    def _receive(self) -> bool:
        piece = self.socket.recv(65536)
        self.buffer += piece
        return bool(piece)

    def _line(self) -> bytes:
        while b"\r\n" not in self.buffer:
            if not self._receive():
                raise AssertionError(f"the connection ended in the middle of {self.buffer[:200]!r}")
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line

    def head(self) -> Head:
        """The next response's status line and headers."""
        version, status, _ = (self._line().decode("latin-1") + " ").split(" ", 2)
        headers: dict[str, str] = {}
        while line := self._line().decode("latin-1"):
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return Head(version, int(status), headers)

    def pieces(self, head: Head) -> Iterator[bytes]:
        """The body as it arrives; afterwards `complete` says whether it ended as announced."""
        self.complete = self._method == "HEAD" or head.status in (204, 304)
        if self.complete:
            return
        if head.headers.get("transfer-encoding", "").lower() == "chunked":
            yield from self._chunked()
        elif "content-length" in head.headers:
            size = int(head.headers["content-length"])
            while len(self.buffer) < size:
                if not self._receive():
                    return
            piece, self.buffer = self.buffer[:size], self.buffer[size:]
            self.complete = True
            yield piece
        else:
            while self.buffer or self._receive():
                piece, self.buffer = self.buffer, b""
                yield piece
            self.complete = True

    def _chunked(self) -> Iterator[bytes]:
        while size := int(self._line().split(b";")[0], 16):
            while len(self.buffer) < size + 2:
                if not self._receive():
                    raise AssertionError("the connection ended inside a chunk")
            assert self.buffer[size : size + 2] == b"\r\n", "a chunk is longer than it says"
            piece, self.buffer = self.buffer[:size], self.buffer[size + 2 :]
            self.chunks += 1
            yield piece
        assert self._line() == b"", "no trailers were announced"
        self.complete = True

    def body(self, head: Head) -> bytes:
        """The whole body; fails if it was cut short."""
        body = b"".join(self.pieces(head))
        assert self.complete, f"the body was cut short after {len(body)} bytes"
        return body

    def rest(self) -> bytes:
        """Whatever comes before the server closes, without making sense of it."""
        while self._receive():
            pass
        rest, self.buffer = self.buffer, b""
        return rest

    def at_end(self) -> bool:
        """Whether the server has closed, with nothing more to read."""
        return not self.buffer and not self._receive()


@dataclass(frozen=True)
class Answer:
    """An ordinary response, read to its end."""

    status: int
    headers: dict[str, str]
    body: bytes


def fetch(
    server: Server | int,
    path: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
) -> Answer:
    """One request on a connection of its own."""
    with Connection(server) as connection:
        connection.request(path, method=method, headers=headers, body=body)
        head = connection.head()
        return Answer(head.status, head.headers, connection.body(head))
