"""A scripted OpenAI upstream: each stream gets a chunk a period, streams spread evenly over it.

python -m benchmarks.upstream --port 9000 --chunks 700 --rate 100
"""

from __future__ import annotations

import argparse
import json
import select
import socket
import time

_SLOT = 0.001


def chunk_number(data: bytes) -> int | None:
    """Give the number of a relayed chunk, None where it has none; ValueError if unreadable."""
    if data == b"[DONE]":
        return None
    content = json.loads(data)["choices"][0]["delta"].get("content")
    return int(content.removeprefix(" token")) if content else None


def script(chunks: int) -> list[bytes]:
    """Give a response's pieces, each a whole HTTP chunk: role, numbered tokens, finish and end."""
    deltas: list[tuple[dict[str, str], str | None]] = [
        ({"role": "assistant", "content": ""}, None),
        *(({"content": f" token{number}"}, None) for number in range(chunks)),
        ({}, "stop"),
    ]
    frames = [f"data: {_chunk(delta, reason)}\n\n".encode() for delta, reason in deltas]
    frames.append(b"data: [DONE]\n\n")
    pieces = [b"%x\r\n%b\r\n" % (len(frame), frame) for frame in frames]
    return [*pieces[:-2], b"".join(pieces[-2:]) + b"0\r\n\r\n"]


def _chunk(delta: dict[str, str], reason: str | None) -> str:
    return json.dumps(
        {
            "id": "chatcmpl-BenchmarkBenchmarkBenchmark",
            "object": "chat.completion.chunk",
            "created": 1700000000,
            "model": "scripted",
            "service_tier": "default",
            "system_fingerprint": "fp_0123456789",
            "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}],
        },
        separators=(",", ":"),
    )


class _Connection:
    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.received = b""
        self.sent = 0
        self.unsent = b""

    def request_complete(self, data: bytes) -> bool:
        self.received += data
        head, found, body = self.received.partition(b"\r\n\r\n")
        if not found:
            return False
        _, _, length = head.lower().partition(b"content-length:")
        if len(body) < int(length.split(b"\r\n", 1)[0] or 0):
            return False
        self.received = b""
        self.sent = 0
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
    """Answers every request on any path with the script. One thread; `serve` never returns."""

    _HEAD = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )

    def __init__(self, port: int, chunks: int, rate: float) -> None:
        self._script = script(chunks)
        self._slots: list[set[_Connection]] = [set() for _ in range(max(int(1 / rate / _SLOT), 1))]
        self._listener = socket.create_server(("127.0.0.1", port), backlog=1024)
        self._listener.setblocking(False)
        self._connections: dict[int, _Connection] = {}
        self._epoll = select.epoll()
        self._epoll.register(self._listener.fileno(), select.EPOLLIN)

    def serve(self) -> None:
        """Answer requests for ever."""
        following = time.monotonic()
        turn = 0
        while True:
            wait = max(following - time.monotonic(), 0)
            for descriptor, _ in self._epoll.poll(wait):
                if descriptor == self._listener.fileno():
                    self._accept()
                else:
                    self._read(descriptor)
            if time.monotonic() >= following:
                following += _SLOT
                turn = (turn + 1) % len(self._slots)
                self._send(self._slots[turn])

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
            connection.send(self._HEAD)
            min(self._slots, key=len).add(connection)

    def _send(self, slot: set[_Connection]) -> None:
        for connection in list(slot):
            piece = self._script[connection.sent] if connection.sent < len(self._script) else b""
            try:
                connection.send(piece)
            except OSError:
                self._drop(connection)
                continue
            connection.sent += bool(piece)
            if connection.sent == len(self._script) and not connection.unsent:
                slot.discard(connection)

    def _drop(self, connection: _Connection) -> None:
        for slot in self._slots:
            slot.discard(connection)
        del self._connections[connection.socket.fileno()]
        connection.socket.close()


def main() -> None:
    """Serve on a loopback port until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--chunks", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True)
    options = parser.parse_args()
    Upstream(options.port, options.chunks, options.rate).serve()


if __name__ == "__main__":
    main()
