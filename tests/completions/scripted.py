"""An upstream that does exactly what a test says, on a real socket."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from sseflask.completions.outcome import Outcome
from sseflask.completions.writer import Answer

STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)
SECONDS = 10.0


def frame(content: str | None = None, *, finish: str | None = None, **more: Any) -> bytes:
    """One chunk as OpenAI sends it."""
    delta = {"content": content} if content is not None else {}
    chunk = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "scripted",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        **more,
    }
    return f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n".encode()


DONE = b"data: [DONE]\n\n"


def read_all(answer: Answer) -> tuple[list[list[bytes]], Outcome]:
    """The reads of an answer and its outcome, which is the last thing that it gives."""
    reads: list[list[bytes]] = []
    for came in answer:
        if isinstance(came, Outcome):
            assert list(answer) == []
            return reads, came
        assert came
        reads.append(came)
    raise AssertionError("it has no outcome")


def event(kind: str, **more: Any) -> bytes:
    """One event as the Responses API sends it."""
    data = json.dumps({"type": kind, **more}, ensure_ascii=False)
    return f"event: {kind}\ndata: {data}\n\n".encode()


@dataclass
class Exchange:
    """One request, and the way to answer it.

    Attributes:
        headers: the request's, by lower-case name.
        body: the request's, as JSON.
        content: the same as it came.
    """

    connection: socket.socket
    line: str
    headers: dict[str, str]
    body: Any
    content: bytes = b""

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def begin(self) -> None:
        self.send(STREAM_HEAD)

    def chunk(self, data: bytes) -> None:
        self.send(b"%x\r\n%s\r\n" % (len(data), data))

    def end(self) -> None:
        self.send(b"0\r\n\r\n")

    def stream(self, *pieces: bytes) -> None:
        """A whole streamed answer, each piece a chunk of its own."""
        self.begin()
        for piece in pieces:
            self.chunk(piece)
        self.end()

    def answer(self, status: int, body: bytes, kind: str = "application/json", *more: str) -> None:
        """An ordinary answer."""
        lines = [f"HTTP/1.1 {status} Whatever", f"Content-Type: {kind}", *more]
        head = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""])
        self.send(head.encode() + body)

    def hang_up(self) -> None:
        """Close the connection, whatever has been sent."""
        self.connection.shutdown(socket.SHUT_RDWR)

    def say_goodbye(self) -> None:
        """TLS's own end of what this side sends; the connection stays open beneath it."""
        assert isinstance(self.connection, ssl.SSLSocket)
        self.connection.setblocking(False)
        with contextlib.suppress(ssl.SSLWantReadError):  # the client need not say its own
            self.connection.unwrap()

    def left(self) -> bool:
        """Block until the client has closed its end; False when it has not in 10 s."""
        self.connection.settimeout(SECONDS)
        try:
            return self.connection.recv(1) == b""
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False


Script = Callable[[Exchange], None]


@dataclass
class Upstream:
    """What the scripted server has seen.

    Attributes:
        url: its base URL.
        connections: how many were opened.
        exchanges: the requests, in order.
        failures: what scripts raised; a test that ends with some fails.
    """

    url: str
    connections: int = 0
    exchanges: list[Exchange] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)


def _read(stream: Any) -> tuple[str, dict[str, str], Any, bytes] | None:
    line = stream.readline().decode().rstrip()
    if not line:
        return None
    headers: dict[str, str] = {}
    while text := stream.readline().decode().rstrip():
        name, _, value = text.partition(":")
        headers[name.lower()] = value.strip()
    body = stream.read(int(headers.get("content-length", 0)))
    return line, headers, json.loads(body) if body else None, body


def server_side(connection: socket.socket, tls: ssl.SSLContext) -> ssl.SSLSocket:
    """A connection as a server has it over TLS; the first read shakes hands."""
    return tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)


def shutdown(connection: socket.socket, how: int) -> None:
    """Also of TLS, where another thread may be reading: its own would drop the layer beneath it."""
    socket.socket.shutdown(connection, how)


@contextlib.contextmanager
def upstream(script: Script, tls: ssl.SSLContext | None = None) -> Iterator[Upstream]:
    """Serve every request by the script, on connections that stay open until the client closes."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    seen = Upstream(f"{'http' if tls is None else 'https'}://127.0.0.1:{port}/v1")
    threads: list[threading.Thread] = []
    idle: set[socket.socket] = set()
    lock = threading.Lock()
    closing = threading.Event()

    def next_request(connection: socket.socket, stream: Any) -> Any:
        with lock:
            if closing.is_set() or connection.fileno() < 0:
                return None
            idle.add(connection)
        try:
            return _read(stream)
        finally:
            with lock:
                idle.discard(connection)

    def serve(connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream, contextlib.suppress(OSError):
            # A client that has gone is what many tests are about: their scripts look themselves.
            while request := next_request(connection, stream):
                exchange = Exchange(connection, *request)
                seen.exchanges.append(exchange)
                try:
                    script(exchange)
                except (AssertionError, TypeError, ValueError, KeyError) as error:
                    seen.failures.append(error)
                    return

    def accept() -> None:
        with contextlib.suppress(OSError):  # the listener was closed
            while True:
                connection, _ = listener.accept()
                connection.settimeout(SECONDS)
                if tls is not None:
                    connection = server_side(connection, tls)
                seen.connections += 1
                thread = threading.Thread(target=serve, args=(connection,))
                threads.append(thread)
                thread.start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield seen
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        with lock:
            closing.set()
            for connection in idle:
                with contextlib.suppress(OSError):  # the client was faster
                    shutdown(connection, socket.SHUT_RD)
        for thread in [acceptor, *threads]:
            thread.join(SECONDS)
            assert not thread.is_alive(), "an upstream connection was left open"
    assert not seen.failures, seen.failures
