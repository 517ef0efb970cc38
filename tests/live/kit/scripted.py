"""An OpenAI-compatible upstream whose answers a test scripts, frame by frame, while it runs.

aimock answers by its own clock and counts all its streams together. These tests have to hold an
answer between two of its frames while readers come and go, to know of one single request whether it
was made twice or closed early, and to see the bytes it was made of: so the server is in the test's
own process.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from tests.live.kit.services import KEY
from tests.live.kit.waiting import until
from tests.scripted_upstream import (
    DONE,
    LAST_CHUNK,
    STREAM_HEAD,
    Exchange,
    Upstream,
    chunk,
    frame,
    response,
    upstream,
)

#: How long a write to a service that does not read may take.
PATIENCE = 30.0
MODELS = b'{"object": "list",  "data": [{"id": "scripted-1", "object": "model"}]}'
USAGE = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}


def usage_frame(usage: dict[str, Any]) -> bytes:
    """The chunk with the usage, after the one with the reason why the answer ends."""
    return frame(choices=[], usage=usage)


@dataclass
class Request(Exchange):
    """One request.

    Attributes:
        left_early: whether the client closed the connection before the answer was complete.
        ended: whether the answer was complete.
    """

    left_early: bool = False
    ended: bool = False


@dataclass(frozen=True)
class _Step:
    data: bytes
    #: Whether the answer ends here.
    last: bool = False
    #: Whether the connection is then closed.
    closes: bool = False


@dataclass
class ScriptedAnswer:
    """One answer; each request whose body has `message` in it gets it from the beginning.

    Steps may be added before there is a request and while one is being answered; they are carried
    out at once. Thread-safe.
    """

    message: str = field(default_factory=lambda: f"script-{uuid.uuid4().hex}")
    requests: list[Request] = field(default_factory=list)
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

    def end(self, *, close: bool = False) -> None:
        """The proper end of the response, whatever has been said.

        Args:
            close: whether the connection is then closed, as servers do with one that is idle.
        """
        self.begin()
        self._add(_Step(LAST_CHUNK, last=True, closes=close))

    def finish(self, reason: str = "stop", usage: dict[str, Any] | None = USAGE) -> None:
        """The end of a complete answer: three frames, two without usage."""
        self.send(frame(finish=reason))
        if usage is not None:
            self.send(usage_frame(usage))
        # In one write: a client that closes as soon as it has read this has not left early.
        self._add(_Step(chunk(DONE) + LAST_CHUNK, last=True))

    def hang_up(self) -> None:
        """Close the connection, whatever has been sent."""
        self._add(_Step(b"", last=True, closes=True))

    def answer(
        self, status: int, body: bytes, *headers: str, kind: str = "application/json"
    ) -> None:
        """An ordinary response."""
        self._add(_Step(response(status, body, kind, *headers), last=True))

    @property
    def count(self) -> int:
        """How often the upstream was asked."""
        return len(self.requests)

    def wait_for_requests(self, count: int = 1) -> None:
        until(lambda: self.count >= count, f"the upstream asked {count} times")

    def left(self) -> bool:
        """Whether all requests were left before their answer was complete, of which there are."""
        return bool(self.requests) and all(each.left_early for each in self.requests)

    def wait_until_left(self, seconds: float = 15.0) -> None:
        until(self.left, "the upstream's connection closed early", seconds=seconds)

    def _add(self, step: _Step) -> None:
        with self._lock:
            self._steps.append(step)
            for waker in self._wakers:
                waker.send(b"!")

    def perform(self, request: Request) -> None:
        """Answer a request; returns when the answer has ended, or the client has left."""
        waker, woken = socket.socketpair()
        with waker, woken:
            with self._lock:
                self.requests.append(request)
                self._wakers.append(waker)
                refusal = self._refusals.pop(0) if self._refusals else None
            try:
                if refusal is None:
                    self._perform(request, woken)
                else:
                    request.send(refusal)
                    request.ended = True
            except OSError:
                request.left_early = True
                raise
            finally:
                with self._lock:
                    self._wakers.remove(waker)

    def _perform(self, request: Request, woken: socket.socket) -> None:
        done = 0
        while True:
            with self._lock:
                steps = self._steps[done:]
            for step in steps:
                done += 1
                request.send(step.data)
                if step.last:
                    request.ended = True
                    if step.closes:
                        request.hang_up()
                    return
            readable, _, _ = select.select([request.connection, woken], [], [])
            if woken in readable:
                woken.recv(4096)
            elif not request.connection.recv(1):
                request.left_early = True
                return


@dataclass
class ScriptedUpstream:
    """The server.

    Attributes:
        server: what it has seen: its address, its connections.
        unknown: requests that have no script; they got a 500.
        models: the requests for its models.
    """

    server: Upstream = field(default_factory=lambda: Upstream(""))
    unknown: list[Request] = field(default_factory=list)
    models: list[Request] = field(default_factory=list)
    _scripts: list[ScriptedAnswer] = field(default_factory=list)

    @property
    def port(self) -> int:
        return urlsplit(self.server.url).port or 0

    @property
    def scheme(self) -> str:
        return urlsplit(self.server.url).scheme

    def settings(self) -> dict[str, str]:
        """What makes it the upstream of a service."""
        return {"OPENAI_BASE_URL": self.server.url, "OPENAI_API_KEY": KEY}

    def script(self) -> ScriptedAnswer:
        """A new answer, to requests that have its message."""
        made = ScriptedAnswer()
        self._scripts.append(made)
        return made

    def _script_for(self, request: Request) -> ScriptedAnswer:
        for known in reversed(self._scripts):
            if known.message.encode() in request.content:
                return known
        other = ScriptedAnswer()
        if request.line.startswith("GET /v1/models "):
            self.models.append(request)
            other.answer(200, MODELS)
        else:
            self.unknown.append(request)
            other.answer(500, b'{"error": {"message": "nobody has told me about this"}}')
        return other

    def __call__(self, exchange: Exchange) -> None:
        request = Request(exchange.connection, exchange.line, exchange.headers, exchange.content)
        self._script_for(request).perform(request)


@contextlib.contextmanager
def scripted_upstream(tls: ssl.SSLContext | None = None) -> Iterator[ScriptedUpstream]:
    """The server, until the end of the block; connections that are still open are cut then."""
    scripted = ScriptedUpstream()
    with upstream(scripted, tls, seconds=PATIENCE, cut=True) as scripted.server:
        yield scripted
