"""Bare greenlets: what gevent takes of an event, with no server and no framework around it.

python -m benchmarks.servers.bare_gevent 8000 serves `/tick?rate=<n>&count=<n>`. A generator sleeps
and yields as an application's, and each piece is written to the socket at once: without heartbeats,
a watch for the client's leaving, counts or a bound. That is the least a stream in a greenlet takes.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from urllib.parse import parse_qs

from gevent import monkey
from gevent.server import StreamServer
from gevent.socket import IPPROTO_TCP, TCP_NODELAY, socket

from benchmarks.stack import ROUTES, Stack

STACK = Stack(
    name="bare_gevent",
    title="bare write(2) in a greenlet (gevent)",
    family="bare",
    command=(sys.executable, "-m", "benchmarks.servers.bare_gevent", "{port}"),
    packages=("gevent",),
    routes={"tick": ROUTES["tick"]},
)

_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


def _events(rate: float, count: int) -> Iterator[str]:
    for number in range(count):
        time.sleep(1 / rate)
        yield f"data: {number}\n\n"


def _serve(client: socket, _address: object) -> None:
    request = b""
    while b"\r\n\r\n" not in request:
        piece = client.recv(65536)
        if not piece:
            return
        request += piece
    path, _, query = request.split(b" ", 2)[1].decode().partition("?")
    values = parse_qs(query)
    if path != "/tick":
        client.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        return
    client.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
    descriptor = client.fileno()
    client.sendall(_HEAD)
    for event in _events(float(values["rate"][0]), int(values["count"][0])):
        frame = event.encode()
        os.write(descriptor, b"%x\r\n%b\r\n" % (len(frame), frame))
    client.sendall(b"0\r\n\r\n")


def main() -> None:
    """Serve until killed."""
    monkey.patch_all()
    StreamServer(("127.0.0.1", int(sys.argv[1])), _serve, backlog=4096).serve_forever()


if __name__ == "__main__":
    main()
