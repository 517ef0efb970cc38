"""A bare loop over socket.send in Python: what the language takes, with no framework and no loop.

python -m benchmarks.servers.bare_python 8000 serves `/subscribe/<channel>` and
`POST /publish/<channel>`. A subscriber that does not read is given up as soon as the kernel takes
nothing more for it.
"""

from __future__ import annotations

import contextlib
import select
import socket
import sys
from collections import defaultdict

from benchmarks.stack import CHANNEL_ROUTES, Stack

STACK = Stack(
    name="bare_python",
    title="bare socket.send loop (Python)",
    family="bare",
    command=(sys.executable, "-m", "benchmarks.servers.bare_python", "{port}"),
    packages=(),
    routes={name: CHANNEL_ROUTES[name] for name in ("subscribe", "publish", "health")},
)

_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
    b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
)
_WATCHED = select.EPOLLIN | select.EPOLLRDHUP


class Server:
    """One thread, one epoll object, a set of sockets for each channel."""

    def __init__(self, port: int) -> None:
        self._epoll = select.epoll()
        self._listener = socket.create_server(("127.0.0.1", port), backlog=4096)
        self._listener.setblocking(False)
        self._epoll.register(self._listener, select.EPOLLIN)
        self._connections: dict[int, socket.socket] = {}
        self._requests: dict[int, bytes] = {}
        self._channels: defaultdict[bytes, set[socket.socket]] = defaultdict(set)

    def serve(self) -> None:
        """Serve until killed."""
        while True:
            for descriptor, _ in self._epoll.poll():
                if descriptor == self._listener.fileno():
                    self._accept()
                else:
                    self._receive(descriptor)

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                connection, _ = self._listener.accept()
                connection.setblocking(False)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._connections[connection.fileno()] = connection
                self._requests[connection.fileno()] = b""
                self._epoll.register(connection, _WATCHED)

    def _receive(self, descriptor: int) -> None:
        connection = self._connections[descriptor]
        try:
            data = connection.recv(65536)
        except OSError:
            data = b""
        if not data:
            self._drop(connection)
        elif descriptor in self._requests:
            self._requests[descriptor] += data
            self._respond(connection)

    def _respond(self, connection: socket.socket) -> None:
        request = self._requests[connection.fileno()]
        head, found, body = request.partition(b"\r\n\r\n")
        size = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        if not found or len(body) < int(size or 0):
            return
        method, target, _ = head.split(b" ", 2)
        kind, _, channel = target.removeprefix(b"/").partition(b"/")
        if (method, kind) == (b"GET", b"subscribe"):
            del self._requests[connection.fileno()]
            self._channels[channel].add(connection)
            connection.send(_HEAD)
            return
        status = b"404 Not Found"
        if (method, kind) == (b"POST", b"publish"):
            self._publish(channel, body)
            status = b"201 Created"
        elif (method, kind) == (b"GET", b"healthz"):
            status = b"200 OK"
        self._requests[connection.fileno()] = b""
        connection.send(b"HTTP/1.1 %b\r\nContent-Length: 0\r\n\r\n" % status)

    def _publish(self, channel: bytes, data: bytes) -> None:
        chunk = b"%x\r\ndata: %b\n\n\r\n" % (len(data) + 8, data)
        late = []
        for subscriber in self._channels[channel]:
            try:
                taken = subscriber.send(chunk)
            except OSError:
                taken = 0
            if taken < len(chunk):
                late.append(subscriber)
        for subscriber in late:
            self._drop(subscriber)

    def _drop(self, connection: socket.socket) -> None:
        self._connections.pop(connection.fileno())
        self._requests.pop(connection.fileno(), None)
        for subscribers in self._channels.values():
            subscribers.discard(connection)
        connection.close()


if __name__ == "__main__":
    Server(int(sys.argv[1])).serve()
