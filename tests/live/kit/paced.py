"""An OpenAI-compatible upstream that a test directs, frame by frame.

The third party's server (aimock) answers by its own clock and counts all its streams together.
These tests have to hold an answer between two of its frames while readers come and go, to know of
one single request whether it was made twice or closed early, and to see the bytes it was made of;
for that the server has to be a script in the test's own process.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import ssl
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.live.kit.services import KEY
from tests.live.kit.waiting import until
from tests.scripted_upstream import (
    DONE,
    LAST_CHUNK,
    STREAM_HEAD,
    chunk,
    frame,
    listening,
    read_request,
    response,
    shutdown,
)

#: How long a write to a service that does not read may take.
PATIENCE = 30.0
MODELS = b'{"object": "list",  "data": [{"id": "paced-1", "object": "model"}]}'
USAGE = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}


def usage_frame(usage: dict[str, Any]) -> bytes:
    """The chunk that tells the usage, after the one with the reason why the answer ends."""
    return frame(choices=[], usage=usage)


@dataclass
class Asked:
    """One request.

    Attributes:
        line: the request line.
        headers: by lower-case name.
        raw: the body as it came.
        left: whether the client closed the connection before the answer was complete.
        ended: whether the answer was complete.
    """

    line: str
    headers: dict[str, str]
    raw: bytes
    left: bool = False
    ended: bool = False

    def body(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.raw)
        return value


@dataclass(frozen=True)
class _Step:
    data: bytes
    #: What becomes of the connection: None is nothing yet.
    last: str | None = None


@dataclass
class Play:
    """One answer; each request whose body has `message` in it gets it from the beginning.

    Steps may be added before there is a request and while one is being answered; they are carried
    out at once. Thread-safe.
    """

    message: str = field(default_factory=lambda: f"play-{uuid.uuid4().hex}")
    asked: list[Asked] = field(default_factory=list)
    _steps: list[_Step] = field(default_factory=list)
    _wakers: list[socket.socket] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _refusals: list[bytes] = field(default_factory=list)
    _begun: bool = False

    def refuse(self, status: int, body: bytes, *headers: str) -> None:
        """Refuse one request before the answer; repeated, the next one as well."""
        self._refusals.append(response(status, body, "application/json", *headers))

    def begin(self) -> None:
        """The head of a stream; the first frame would bring it too."""
        if not self._begun:
            self._begun = True
            self._add(_Step(STREAM_HEAD))

    def send(self, *frames: bytes) -> None:
        """Frames, or any bytes, each a chunk of its own."""
        self.begin()
        for data in frames:
            self._add(_Step(chunk(data)))

    def say(self, *texts: str) -> None:
        """Pieces of text, each in a frame."""
        self.send(*(frame(text) for text in texts))

    def end(self) -> None:
        """The proper end of the response, whatever has been said."""
        self.begin()
        self._add(_Step(LAST_CHUNK, "end"))

    def end_and_close(self) -> None:
        """The same; then the connection is closed, as servers do with one that has been idle."""
        self.begin()
        self._add(_Step(LAST_CHUNK, "hang up"))

    def finish(self, reason: str = "stop", usage: dict[str, Any] | None = USAGE) -> None:
        """The end of a complete answer: three frames, two without usage."""
        self.send(frame(finish=reason))
        if usage is not None:
            self.send(usage_frame(usage))
        # In one write: a client that closes as soon as it has read this has not left early.
        self._add(_Step(chunk(DONE) + LAST_CHUNK, "end"))

    def hang_up(self) -> None:
        """Close the connection, whatever has been sent."""
        self._add(_Step(b"", "hang up"))

    def answer(
        self, status: int, body: bytes, *headers: str, kind: str = "application/json"
    ) -> None:
        """An ordinary response."""
        self._add(_Step(response(status, body, kind, *headers), "end"))

    @property
    def count(self) -> int:
        """How often the upstream was asked."""
        return len(self.asked)

    def wait_for_asked(self, count: int = 1) -> None:
        until(lambda: self.count >= count, f"the upstream asked {count} times")

    def left(self) -> bool:
        return bool(self.asked) and all(asked.left for asked in self.asked)

    def wait_until_left(self, seconds: float = 15.0) -> None:
        """Until all its connections are closed, before the answer was complete."""
        until(self.left, "the upstream's connection closed early", seconds=seconds)

    def _add(self, step: _Step) -> None:
        with self._lock:
            self._steps.append(step)
            for waker in self._wakers:
                waker.send(b"!")

    def perform(self, asked: Asked, connection: socket.socket) -> bool:
        """Answer a request; whether the connection can be used again."""
        waker, woken = socket.socketpair()
        with waker, woken:
            with self._lock:
                self.asked.append(asked)
                self._wakers.append(waker)
                refusal = self._refusals.pop(0) if self._refusals else None
            try:
                if refusal is not None:
                    connection.sendall(refusal)
                    asked.ended = True
                    return True
                return self._perform(asked, connection, woken)
            except OSError:
                asked.left = True
                return False
            finally:
                with self._lock:
                    self._wakers.remove(waker)

    def _perform(self, asked: Asked, connection: socket.socket, woken: socket.socket) -> bool:
        done = 0
        while True:
            with self._lock:
                steps = self._steps[done:]
            for step in steps:
                done += 1
                connection.sendall(step.data)
                if step.last is not None:
                    asked.ended = True
                    return step.last == "end"
            readable, _, _ = select.select([connection, woken], [], [])
            if woken in readable:
                woken.recv(4096)
            elif not connection.recv(1):
                asked.left = True
                return False


@dataclass
class PacedUpstream:
    """The server.

    Attributes:
        port: where it listens on 127.0.0.1.
        scheme: http or https.
        connections: how many were opened.
        strangers: requests that belong to no play; they got a 500.
        models: the requests for its models.
    """

    port: int
    scheme: str = "http"
    connections: int = 0
    strangers: list[Asked] = field(default_factory=list)
    models: list[Asked] = field(default_factory=list)
    _plays: list[Play] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def settings(self) -> dict[str, str]:
        return {
            "OPENAI_BASE_URL": f"{self.scheme}://127.0.0.1:{self.port}/v1",
            "OPENAI_API_KEY": KEY,
        }

    def play(self) -> Play:
        """A new answer, to those who say its message."""
        made = Play()
        self._plays.append(made)
        return made

    def _play(self, asked: Asked) -> Play:
        for known in reversed(self._plays):
            if known.message.encode() in asked.raw:
                return known
        other = Play()
        if asked.line.startswith("GET /v1/models "):
            self.models.append(asked)
            other.answer(200, MODELS)
        else:
            self.strangers.append(asked)
            other.answer(500, b'{"error": {"message": "nobody has told me about this"}}')
        return other

    def serve(self, connection: socket.socket) -> None:
        """Answer the requests of one connection."""
        with self._lock:
            self.connections += 1
        with connection, connection.makefile("rb") as stream, contextlib.suppress(OSError):
            while request := read_request(stream):
                asked = Asked(*request)
                if not self._play(asked).perform(asked, connection):
                    # The stream holds the descriptor too: closing alone would not be seen.
                    shutdown(connection, socket.SHUT_RDWR)
                    return


@contextlib.contextmanager
def paced_upstream(tls: ssl.SSLContext | None = None) -> Iterator[PacedUpstream]:
    """The server, until the end of the block; connections that are still open are cut then."""
    upstream = PacedUpstream(0, "http" if tls is None else "https")

    def end(connection: socket.socket) -> None:
        shutdown(connection, socket.SHUT_RDWR)

    with listening(upstream.serve, end, PATIENCE, tls) as port:
        upstream.port = port
        yield upstream
