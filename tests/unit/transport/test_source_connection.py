"""Sources under gunicorn's gevent worker: on a real socket, with gunicorn's own response."""

from __future__ import annotations

import contextlib
import math
import socket
import time
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import gevent
import gevent.socket
import pytest
from gevent.event import Event as Signal
from gunicorn.config import Config
from gunicorn.http.wsgi import Response

from sseflask.errors import Failure
from sseflask.transport import connection
from sseflask.transport.detached.group import DetachedStream, Group
from sseflask.transport.failures import failure_frame, shutting_down
from sseflask.transport.gunicorn.server_response import ServerResponse
from sseflask.transport.source import Source
from sseflask.transport.source_connection import SourceConnection
from sseflask.transport.stream import EarlyError, Stream

SECONDS = 10.0
ONE, TWO, THREE = (b"id: %d\ndata: %d\n\n" % (number, number) for number in (1, 2, 3))


class Scripted(Source):
    """Has some frames, waits for those that a test gives it, and ends when there are none."""

    def __init__(
        self,
        *script: bytes | Signal,
        first: Sequence[bytes | Exception] = (),
        resumable: bool = True,
        joins: bool = True,
    ) -> None:
        self._resumable = resumable
        self.waited: list[float] = []
        self.closed = 0
        self.group = Group(True, 15.0, lambda _: None)
        self._script = list(script)
        self._first = first
        self._joins = joins

    @property
    def resumable(self) -> bool:
        return self._resumable

    @property
    def ended(self) -> bool:
        return not self._script

    def first(self, timeout: float) -> Iterator[bytes]:
        self.waited.append(timeout)
        for each in self._first:
            if isinstance(each, Exception):
                raise each
            yield each

    def get(self, timeout: float | None) -> tuple[bytes, bool] | None:
        while self._script:
            each = self._script[0]
            if isinstance(each, bytes):
                del self._script[0]
                return each, self.resumable
            if timeout is not None:
                return None
            assert each.wait(SECONDS)
            del self._script[0]
        raise StopIteration

    def join(self, chunked: bool, heartbeat: float) -> Group | None:
        assert (chunked, heartbeat) == (True, 15.0)
        if not self._joins:
            self._joins = True  # something has come meanwhile
            self._script.insert(0, THREE)
            return None
        return self.group

    def abandon(self) -> None:
        self.closed += 1


class Served:
    """One response on its way to a client."""

    def __init__(
        self,
        source: Source,
        *,
        retry: int | None = None,
        lifetime: float = 0.0,
        detaches: bool = False,
    ) -> None:
        self.adopted: list[tuple[DetachedStream, float]] = []
        ours, self.client = socket.socketpair()
        self.socket = gevent.socket.socket(fileno=ours.detach())
        self.client.setblocking(False)
        request: Any = SimpleNamespace(
            version=(1, 1),
            method="GET",
            headers=[],
            body=SimpleNamespace(),
            should_close=lambda: True,
        )
        self.response = Response(request, self.socket, Config())
        self.errors: list[Exception] = []
        stream = Stream(
            items=source,
            encode=bytes,
            status="200 OK",
            headers=[("Content-Type", "text/event-stream")],
            frames_only=False,
            heartbeat=15.0,
            first_byte=1.0,
            lifetime=lifetime,
            expires_at=None,
            detachable=True,
            retry=retry,
            retry_jitter=2500,
            keeps_view=False,
            context=contextlib.nullcontext,
            path="/",
            reporter=self.report,
            failure_frame=failure_frame,
            response=source,
        )
        environ = {"gunicorn.socket": self.socket, "PATH_INFO": "/"}
        start_response: Any = self.response.start_response
        server = ServerResponse(self.response, self.adopt if detaches else None)
        self.body = SourceConnection(stream, environ, start_response, server)

    def adopt(self, member: DetachedStream, ends_at: float, *_: object) -> None:
        self.adopted.append((member, ends_at))

    def detach(self) -> tuple[DetachedStream, float]:
        """Serve it until nothing is left but to wait; what the worker is given then."""
        self.body.begin()
        (adopted,) = self.adopted
        return adopted

    def report(self, _path: str, error: Exception) -> Failure:
        assert isinstance(error, Failure)
        self.errors.append(error)
        return error

    def run(self) -> list[bytes]:
        """Serve all of it; what is left for gunicorn to send."""
        self.body.begin()
        return list(self.body)

    def received(self) -> tuple[bytes, bytes]:
        """The head, and the body without the chunks' sizes and with its end."""
        data = b""
        with contextlib.suppress(BlockingIOError):
            while piece := self.client.recv(1 << 20):
                data += piece
        head, _, rest = data.partition(b"\r\n\r\n")
        body = b""
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            length = int(size, 16)
            body, rest = body + (rest[:length] or b"<end>"), rest[length + 2 :]
        return head, body

    def close(self) -> None:
        self.body.close()
        self.socket.close()
        self.client.close()


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(connection, "LINGER_SECONDS", 0.0)  # these clients look afterwards
    made: list[Served] = []

    def make(source: Source, **arguments: Any) -> Served:
        made.append(Served(source, **arguments))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_an_ended_source_is_an_ended_response(served: Any) -> None:
    source = Scripted(TWO, first=[ONE])
    response = served(source)
    assert response.run() == []
    head, body = response.received()
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert body == ONE + TWO + b"<end>"
    (waited,) = source.waited
    assert 0.5 < waited <= 1.0
    assert source.closed


def test_a_stream_that_has_begun_does_not_keep_what_it_began_with(served: Any) -> None:
    response = served(Scripted(TWO, first=[ONE]))
    assert response.body.stream.headers
    response.run()
    assert response.body.stream.headers == []


@pytest.mark.parametrize("detached", [False, True])
def test_a_failure_before_the_first_frame_is_another_response(served: Any, detached: bool) -> None:
    failure = Failure("no", status=404, code="no")
    response = served(Scripted(TWO, first=[failure]), detaches=detached)
    with pytest.raises(EarlyError) as raised:
        response.run()
    assert not response.adopted
    assert raised.value.error is failure
    assert response.response.status is None, "another one can be sent"
    assert response.received() == (b"", b"")


@pytest.mark.parametrize("detached", [False, True])
def test_one_that_ends_before_it_could_join_is_served_to_its_end(
    served: Any, detached: bool
) -> None:
    response = served(Scripted(TWO, first=[ONE]), retry=700, detaches=detached)
    assert response.run() == []
    assert not response.adopted
    assert response.received()[1] == b"retry: 700\n" + ONE + TWO + b"<end>"


def test_the_rest_is_left_to_a_group(served: Any) -> None:
    source = Scripted(ONE, TWO, Signal(), joins=False)
    response = served(source, detaches=True)
    member, ends_at = response.detach()
    assert isinstance(member, DetachedStream)
    assert (member.group, ends_at) == (source.group, math.inf)
    assert response.received()[1] == ONE + TWO + THREE, "with what came at the last moment"
    assert member.sent_offset == len(ONE + TWO + THREE)
    assert source.closed
    socket.socket(fileno=member.descriptor).close()


def test_the_headers_do_not_wait_when_nothing_is_there(served: Any) -> None:
    response = served(Scripted(Signal()), retry=700, detaches=True)
    member, _ = response.detach()
    head, body = response.received()
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert body == b"retry: 700\n"
    socket.socket(fileno=member.descriptor).close()


def in_a_greenlet(served: Any, source: Source) -> tuple[Served, Any]:
    """Serve a response in a greenlet that may be interrupted, until it waits for the source."""
    made: list[Served] = []

    def serve() -> None:
        made.append(served(source))
        made[0].run()

    serving = gevent.spawn(serve)
    gevent.sleep(0)
    return made[0], serving


@pytest.mark.parametrize("resumable", [True, False])
def test_only_one_that_can_resume_is_sent_away(served: Any, resumable: bool) -> None:
    more = Signal()
    source = Scripted(more, TWO, first=[ONE], resumable=resumable)
    response, serving = in_a_greenlet(served, source)
    response.body.rotate()
    gevent.sleep(0)
    more.set()
    serving.join(SECONDS)
    body = response.received()[1]
    assert body.startswith(ONE)
    assert (b"retry: " in body) == resumable
    assert (TWO in body) != resumable
    assert body.endswith(b"<end>")


def test_one_that_can_not_resume_is_told_when_the_server_goes(served: Any) -> None:
    source = Scripted(Signal(), first=[ONE], resumable=False)
    response, serving = in_a_greenlet(served, source)
    response.body.fail(shutting_down())
    serving.join(SECONDS)
    assert response.received()[1] == ONE + failure_frame(shutting_down()) + b"<end>"
    assert source.closed


def test_a_lifetime_ends_a_detached_stream_somewhat_earlier(served: Any) -> None:
    response = served(Scripted(Signal(), first=[ONE]), lifetime=100.0, detaches=True)
    member, ends_at = response.detach()
    left = ends_at - time.monotonic()
    assert 79.0 < left <= 100.0
    assert not member.expires
    socket.socket(fileno=member.descriptor).close()
