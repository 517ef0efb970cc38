"""A scripted OpenAI upstream: each stream gets a chunk at once, and then one a period.

The streams are spread evenly over the period.

It runs in the load client's own loop: each chunk carries the moment it was sent, and as the same
thread notes when it came through the relay, no wait for a core stands between the two.
"""

from __future__ import annotations

import json
import select
import socket
import time
from typing import NamedTuple

_SLOT = 0.001
_CATCH_UP = 10
"""Slots made up for after a time in which nobody called; more would be a burst."""

_LEAD = 25
"""Chunks a stream that may be on their way: what lies in sockets has to be read in the end."""

_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
_WIDTH = 19
"""Digits of a number, and of a moment in nanoseconds of the monotonic clock: all chunks alike."""


class Chunk(NamedTuple):
    """What a relayed chunk says: its number, the moment it was sent, and if it is the last."""

    number: int
    sent: int
    last: bool


def read_chunk(data: bytes) -> Chunk | None:
    """Read a relayed chunk; None where it has no number; ValueError if unreadable."""
    if data == b"[DONE]":
        return None
    try:
        chunk = json.loads(data)
        content = chunk["choices"][0]["delta"].get("content")
        if not content:
            return None
        word, number = content.split()
        return Chunk(int(number), int(chunk["system_fingerprint"][3:]), word == "last")
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"no chunk of the script: {data[:60]!r}") from error


def _frame(delta: dict[str, str], reason: str | None = None) -> bytes:
    chunk = {
        "id": "chatcmpl-BenchmarkBenchmarkBenchmark",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": "scripted",
        "service_tier": "default",
        "system_fingerprint": f"fp_{'#' * _WIDTH}",
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}],
    }
    return f"data: {json.dumps(chunk, separators=(',', ':'))}\n\n".encode()


def _http_chunk(frame: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(frame), frame)


def _template(word: str) -> bytes:
    piece = _http_chunk(_frame({"content": f" {word} {'@' * _WIDTH}"})).replace(b"%", b"%%")
    digits = b"%%0%dd" % _WIDTH
    return piece.replace(b"#" * _WIDTH, digits).replace(b"@" * _WIDTH, digits)


_ROLE = _http_chunk(_frame({"role": "assistant", "content": ""}).replace(b"#", b"0"))
_TOKEN, _LAST = _template("token"), _template("last")

DATA_SIZE = len(_frame({"content": f" token {'@' * _WIDTH}"})) - len("data: \n\n")
"""Bytes of data in the event of a chunk."""

AROUND = 3
"""Events of a stream that are no numbered chunks: the role, the reason for the end, `[DONE]`."""

_END = (
    _http_chunk(_frame({}, "stop").replace(b"#", b"0"))
    + _http_chunk(b"data: [DONE]\n\n")
    + b"0\r\n\r\n"
)


class _Connection:
    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.received = b""
        self.number = 0
        self.length: int | None = None
        self.ended = False
        self.unsent = b""

    @property
    def finished(self) -> bool:
        """Whether all of the answer has been handed to the kernel."""
        return self.ended and not self.unsent

    def request_complete(self, data: bytes) -> bool:
        self.received += data
        head, found, body = self.received.partition(b"\r\n\r\n")
        if not found:
            return False
        _, _, length = head.lower().partition(b"content-length:")
        if len(body) < int(length.split(b"\r\n", 1)[0] or 0):
            return False
        self.received = b""
        self.number = 0
        self.ended = False
        return True

    def send(self, data: bytes) -> None:
        # A relay that can't keep up fills its buffers; what it has not taken waits here.
        self.unsent += data
        try:
            done = self.socket.send(self.unsent)
        except BlockingIOError:
            return
        self.unsent = self.unsent[done:]


class Upstream:
    """Answers every request on any path of a loopback port with `rate` chunks a second.

    A stream ends once `finish` has been called, or after `length` chunks where one was set when it
    was asked for. Readers that are far behind get fewer chunks, as from a model that blocks on its
    socket; `received` tells how many of the `sent` ones have come through in all.
    `listener`: where it is asked, closed with it; else a port of its own.
    Not thread-safe; nothing blocks, and nothing happens but in `step`.
    """

    def __init__(self, rate: float, listener: socket.socket | None = None) -> None:
        self.length: int | None = None
        self.received = 0
        self.sent = 0
        self._finishing = False
        self._slots: list[set[_Connection]] = [set() for _ in range(max(int(1 / rate / _SLOT), 1))]
        self._turn = 0
        self._following = time.monotonic()
        self._listener = listener or socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._connections: dict[int, _Connection] = {}
        self._epoll = select.epoll()
        self._epoll.register(self._listener.fileno(), select.EPOLLIN)

    def step(self) -> None:
        """Answer what has come and send what is due."""
        for descriptor, _ in self._epoll.poll(0):
            if descriptor == self._listener.fileno():
                self._accept()
            else:
                self._read(descriptor)
        now = time.monotonic()
        if now >= self._following:
            self._following = max(self._following + _SLOT, now - _CATCH_UP * _SLOT)
            self._turn = (self._turn + 1) % len(self._slots)
            self._send(self._slots[self._turn])

    def finish(self) -> None:
        """Have every stream end with its next chunk, which says that it is the last."""
        self._finishing = True

    def close(self) -> None:
        """Close all connections and the port."""
        for connection in self._connections.values():
            connection.socket.close()
        self._listener.close()
        self._epoll.close()

    @property
    def _lead(self) -> int:
        return _LEAD * len(self._connections)

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.setblocking(False)
        self._connections[connection.fileno()] = _Connection(connection)
        self._epoll.register(connection.fileno(), select.EPOLLIN)

    def _read(self, descriptor: int) -> None:
        connection = self._connections[descriptor]
        try:
            data = connection.socket.recv(65536)
        except OSError:
            data = b""
        if not data:
            self._drop(connection)
        elif connection.request_complete(data):
            connection.length = self.length
            try:
                connection.send(_HEAD + _ROLE + self._next(connection))
            except OSError:
                self._drop(connection)
                return
            if not connection.finished:
                min(self._slots, key=len).add(connection)

    def _send(self, slot: set[_Connection]) -> None:
        for connection in list(slot):
            try:
                if connection.unsent:
                    connection.send(b"")
                elif self._finishing or self.sent - self.received < self._lead:
                    connection.send(self._next(connection))
            except OSError:
                self._drop(connection)
                continue
            if connection.finished:
                # At once: the relay may ask on this connection again as soon as it has the end.
                slot.discard(connection)

    def _next(self, connection: _Connection) -> bytes:
        self.sent += 1
        number, connection.number = connection.number, connection.number + 1
        if not self._finishing and connection.number != connection.length:
            return _TOKEN % (time.monotonic_ns(), number)
        connection.ended = True
        return _LAST % (time.monotonic_ns(), number) + _END

    def _drop(self, connection: _Connection) -> None:
        for slot in self._slots:
            slot.discard(connection)
        del self._connections[connection.socket.fileno()]
        connection.socket.close()
