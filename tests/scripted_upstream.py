"""An upstream that does exactly what a test says, on a real socket."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from sseflask.completions.completion_outcome import CompletionOutcome, UsageNotes
from sseflask.completions.frame_splitter import fields
from sseflask.completions.upstream import CompletionRequest
from sseflask.completions.upstream import Upstream as CompletionsUpstream
from sseflask.runs.outcome import Generated

STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)
LAST_CHUNK = b"0\r\n\r\n"
SECONDS = 10.0


def chunk(data: bytes) -> bytes:
    """As HTTP/1.1 sends a piece of a body whose length is not known."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def response(status: int, body: bytes, kind: str = "application/json", *more: str) -> bytes:
    """An ordinary one, with these headers."""
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Type: {kind}", *more]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


def read_request(stream: BinaryIO) -> tuple[str, dict[str, str], bytes] | None:
    """The request line, the headers by lower-case name, and the body; None at the end."""
    line = stream.readline().decode().rstrip()
    if not line:
        return None
    headers: dict[str, str] = {}
    while text := stream.readline().decode().rstrip():
        name, _, value = text.partition(":")
        headers[name.lower()] = value.strip()
    return line, headers, stream.read(int(headers.get("content-length", 0)))


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


def read_all(answer: Generated) -> tuple[list[list[bytes]], CompletionOutcome]:
    """The reads of an answer and its outcome, which is the last thing that it gives."""
    reads: list[list[bytes]] = []
    for came in answer:
        if isinstance(came, CompletionOutcome):
            assert list(answer) == []
            return reads, came
        assert isinstance(came, list)
        assert came
        reads.append(came)
    raise AssertionError("it has no outcome")


def complete(
    upstream: CompletionsUpstream,
    request: CompletionRequest,
    headers: dict[str, str] | None = None,
) -> bytes:
    """The document of a completion that is not streamed."""
    ((frame,),), _ = read_all(upstream.document(request, headers))
    return fields(frame)[1] or b""


def notes_of(frames: Iterable[bytes]) -> bytes:
    """The notes of an answer's usage once these have passed."""
    usage, notes = UsageNotes(), b""
    for each in frames:
        notes = usage.after(each)
    return notes


def event(kind: str, **more: Any) -> bytes:
    """One event as the Responses API sends it."""
    data = json.dumps({"type": kind, **more}, ensure_ascii=False)
    return f"event: {kind}\ndata: {data}\n\n".encode()


@dataclass
class Exchange:
    """One request, and the way to answer it.

    Attributes:
        headers: the request's, by lower-case name.
        content: the request's body as it came.
    """

    connection: socket.socket
    line: str
    headers: dict[str, str]
    content: bytes

    @property
    def body(self) -> Any:
        """The same as JSON."""
        return json.loads(self.content) if self.content else None

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def begin(self) -> None:
        self.send(STREAM_HEAD)

    def chunk(self, data: bytes) -> None:
        self.send(chunk(data))

    def end(self) -> None:
        self.send(LAST_CHUNK)

    def stream(self, *pieces: bytes) -> None:
        """A whole streamed answer, each piece a chunk of its own."""
        self.begin()
        for piece in pieces:
            self.chunk(piece)
        self.end()

    def answer(self, status: int, body: bytes, kind: str = "application/json", *more: str) -> None:
        """An ordinary answer."""
        self.send(response(status, body, kind, *more))

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


@contextlib.contextmanager
def listening(
    serve: Callable[[socket.socket], None],
    end: Callable[[socket.socket], None],
    seconds: float,
    tls: ssl.SSLContext | None = None,
    host: str = "127.0.0.1",
) -> Iterator[int]:
    """Serve each connection to a port of an address in a thread, and end it after the block.

    Nothing may take longer than these seconds. Gives the port.
    """
    listener = socket.create_server((host, 0), backlog=512)
    threads: list[threading.Thread] = []
    connections: list[socket.socket] = []

    def accept() -> None:
        with contextlib.suppress(OSError):  # the listener was closed
            while True:
                connection, _ = listener.accept()
                connection.settimeout(seconds)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if tls is not None:
                    connection = server_side(connection, tls)
                connections.append(connection)
                thread = threading.Thread(target=serve, args=(connection,))
                threads.append(thread)
                thread.start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join(seconds)
        for connection in connections:
            with contextlib.suppress(OSError):  # the client was faster
                end(connection)
        for thread in threads:
            thread.join(seconds)
            assert not thread.is_alive(), "a connection was left open"


def server_side(connection: socket.socket, tls: ssl.SSLContext) -> ssl.SSLSocket:
    """A connection as a server has it over TLS; the first read shakes hands."""
    return tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)


def shutdown(connection: socket.socket, how: int) -> None:
    """For TLS too, while another thread may be reading: SSLSocket's own drops the TLS layer."""
    socket.socket.shutdown(connection, how)


def cut(connection: socket.socket) -> None:
    """End a connection, whatever is under way on it."""
    shutdown(connection, socket.SHUT_RDWR)


@contextlib.contextmanager
def upstream(
    script: Script,
    tls: ssl.SSLContext | None = None,
    *,
    seconds: float = SECONDS,
    cut: bool = False,
    host: str = "127.0.0.1",
) -> Iterator[Upstream]:
    """Serve every request by the script, on connections that stay open until the client closes.

    Args:
        script: what answers a request, in a thread of its own.
        tls: how to speak TLS.
        seconds: how long nothing may take longer.
        cut: whether what is under way at the end of the block is cut off.
        host: the address that it listens on.
    """
    seen = Upstream("")
    idle: set[socket.socket] = set()
    lock = threading.Lock()
    closing = threading.Event()

    def next_request(connection: socket.socket, stream: BinaryIO) -> Any:
        with lock:
            if closing.is_set() or connection.fileno() < 0:
                return None
            idle.add(connection)
        try:
            return read_request(stream)
        finally:
            with lock:
                idle.discard(connection)

    def serve(connection: socket.socket) -> None:
        with lock:
            seen.connections += 1
        # TLS that has ended raises a ValueError.
        gone = contextlib.suppress(OSError, ValueError)
        with connection, connection.makefile("rb") as stream, gone:
            # A client that has gone is what many tests are about: their scripts look themselves.
            while request := next_request(connection, stream):
                exchange = Exchange(connection, *request)
                seen.exchanges.append(exchange)
                try:
                    script(exchange)
                except (AssertionError, TypeError, ValueError, KeyError) as error:
                    seen.failures.append(error)
                    return

    def end(connection: socket.socket) -> None:
        with lock:
            closing.set()
            if cut or connection in idle:
                shutdown(connection, socket.SHUT_RDWR if cut else socket.SHUT_RD)

    with listening(serve, end, seconds, tls, host) as port:
        seen.url = f"{'http' if tls is None else 'https'}://{host}:{port}/v1"
        yield seen
    assert not seen.failures, seen.failures
