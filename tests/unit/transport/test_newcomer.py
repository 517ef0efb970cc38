"""Newcomers under our own worker: on a real socket, with gunicorn's own response."""

from __future__ import annotations

import contextlib
import math
import socket
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import gevent
import pytest
from gunicorn.config import Config
from gunicorn.http.wsgi import Response

from sseflask.errors import Failure
from sseflask.transport.detached.group import DetachedStream, Group
from sseflask.transport.detached.registry import DetachedStreams
from sseflask.transport.failures import failure_frame
from sseflask.transport.gunicorn.connection_server import ClientSocket
from sseflask.transport.gunicorn.drain import worker_drain
from sseflask.transport.gunicorn.server_response import ServerResponse
from sseflask.transport.newcomer import Newcomer
from sseflask.transport.source import Source
from sseflask.transport.stream import Stream

SECONDS = 10.0
OPENING, STORED = b"id: 1\n\n", b"id: 2\ndata: 2\n\n"


class New(Source):
    """Has an opening alone, or must be asked for its frames: these are others."""

    may_join_at_once = True

    def __init__(self, joins: bool = True, opening: bytes = OPENING) -> None:
        self.group = Group(True, 15.0, lambda _: None)
        self.asked: list[str] = []
        self.ended_at_once = False
        self._joins, self._opening = joins, opening
        self._frames = [STORED]

    def join_at_once(self, chunked: bool, heartbeat: float) -> tuple[bytes, Group] | None:
        assert (chunked, heartbeat) == (True, 15.0)
        self.asked.append("at once")
        return (self._opening, self.group) if self._joins else None

    def get(self, timeout: float | None) -> tuple[bytes, bool] | None:
        assert timeout == 0.0
        self.asked.append("frames")
        return (self._frames.pop(), True) if self._frames else None

    def join(self, chunked: bool, heartbeat: float) -> Group | None:
        assert (chunked, heartbeat) == (True, 15.0)
        return self.group

    def abandon(self) -> None:
        self.asked.append("closed")


class Served:
    """One response on its way to a client, by a worker that adopts its stream."""

    def __init__(
        self,
        source: New,
        *,
        middleware: bool = False,
        retry: int | None = None,
        lifetime: float = 0.0,
        expires_at: float | None = None,
        filled: bool = False,
        **environ: str,
    ) -> None:
        self.detached = DetachedStreams.current()
        self.adopted: list[tuple[DetachedStream, float]] = []
        ours, self.client = socket.socketpair()
        self.socket = ClientSocket(fileno=ours.detach())
        connection: Any = SimpleNamespace(listener="name")
        self.socket.connection = connection
        self.client.setblocking(False)
        self.filled = b""
        if filled:  # as by an earlier response that the client has not read
            self.client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            with contextlib.suppress(BlockingIOError):
                while True:
                    self.filled += b"x" * self.socket.send(b"x", timeout=0.0)
        request: Any = SimpleNamespace(
            version=(1, 1),
            method="GET",
            headers=[],
            body=SimpleNamespace(),
            unreader=SimpleNamespace(buf=SimpleNamespace(getvalue=lambda: b"")),
            should_close=lambda: False,
        )
        self.response = Response(request, self.socket, Config())
        stream = Stream(
            items=source,
            encode=bytes,
            status="200 OK",
            headers=[("Content-Type", "text/event-stream")],
            frames_only=False,
            heartbeat=15.0,
            first_byte=0.0,
            lifetime=lifetime,
            expires_at=expires_at,
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
        start: Any = self.response.start_response
        self.server = ServerResponse(self.response, self.adopt)
        self.body = Newcomer(
            stream,
            {"gunicorn.socket": self.socket, "PATH_INFO": "/", **environ},
            (lambda *arguments: start(*arguments)) if middleware else start,
            source,
            self.server,
            self.adopt,
        )

    def adopt(self, member: DetachedStream, ends_at: float, *_: object) -> None:
        self.adopted.append((member, ends_at))
        self.detached.adopt(member, ends_at)

    def report(self, _path: str, error: Exception) -> Failure:
        raise error

    def begin(self) -> tuple[DetachedStream, float]:
        self.body.begin()
        assert list(self.body) == []
        assert self.server.adopted
        (adopted,) = self.adopted
        return adopted

    def received(self, *, until: bytes = b"") -> bytes:
        """All that has come, or comes until there is something."""
        data, deadline = b"", time.monotonic() + SECONDS
        while True:
            with contextlib.suppress(BlockingIOError):
                while piece := self.client.recv(1 << 16):
                    data += piece
            if data.endswith(until):
                return data
            assert time.monotonic() < deadline, data
            gevent.sleep(0.001)

    def close(self) -> None:
        for member, _ in self.adopted:
            if member.descriptor in self.detached.table.streams:
                self.detached.table.release(member)
        self.body.close()
        self.socket.close()
        self.client.close()


@pytest.fixture
def served() -> Iterator[Any]:
    made: list[Served] = []

    def make(source: New, **arguments: Any) -> Served:
        made.append(Served(source, **arguments))
        return made[-1]

    yield make
    for each in made:
        each.close()


def chunk(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(body), body)


@pytest.mark.parametrize("opening", [OPENING, b""])
@pytest.mark.parametrize("retry", [None, 700])
def test_a_newcomer_is_in_its_group_at_once(served: Any, opening: bytes, retry: int | None) -> None:
    source = New(opening=opening)
    bytes_before = source.group.counts.bytes
    response = served(source, retry=retry)
    member, ends_at = response.begin()
    assert source.asked == ["at once"]
    assert (member.group, ends_at, member.expires) == (source.group, math.inf, False)
    assert source.group.retry_jitter == 2500
    assert member.listener == "name"
    head, _, rest = response.received().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert head.endswith(b"\r\nContent-Type: text/event-stream")
    body = (b"" if retry is None else b"retry: 700\n") + opening
    assert rest == (chunk(body) if body else b"")
    assert member.sent_offset == len(body) == source.group.counts.bytes - bytes_before
    assert member.descriptor in source.group.streams
    response.body.close()
    assert source.asked[1:] == ["closed"]


def otherwise(served: Any, source: New, **arguments: Any) -> None:
    response = served(source, **arguments)
    response.begin()
    assert response.received().endswith(chunk(STORED))
    assert "frames" in source.asked
    assert ("at once" in source.asked) == (not arguments and source.may_join_at_once)


def test_who_is_to_get_more_is_asked_for_its_frames(served: Any) -> None:
    otherwise(served, New(joins=False))


def test_who_can_not_join_at_once_is_not_asked(served: Any) -> None:
    source = New()
    source.may_join_at_once = False
    otherwise(served, source)


@pytest.mark.parametrize(
    "unusual", [{"middleware": True}, {"CONTENT_LENGTH": "0"}], ids=["middleware", "body"]
)
def test_what_is_unusual_takes_the_long_way(served: Any, unusual: dict[str, Any]) -> None:
    if "CONTENT_LENGTH" in unusual:
        unusual["HTTP_TRANSFER_ENCODING"] = ""
        source = New()
        response = served(source, **unusual)
        response.response.req.body = SimpleNamespace(
            read=lambda _: b"", buf=SimpleNamespace(getvalue=lambda: b"")
        )
        response.begin()
        assert response.received().endswith(chunk(STORED))
        assert source.asked[0] == "frames"
    else:
        otherwise(served, New(), **unusual)


def test_a_worker_that_ends_asks_newcomers_to_go_elsewhere(
    served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_drain, "draining", True)
    source = New()
    response = served(source)
    response.response.cfg.set("keepalive", 0)
    response.client.shutdown(socket.SHUT_WR)
    with contextlib.suppress(StopIteration):
        response.body.begin()
    assert not response.adopted
    assert "at once" not in source.asked


@pytest.mark.parametrize("what", ["lifetime", "expiry"])
def test_its_end_is_planned(served: Any, what: str) -> None:
    times = {"lifetime": 100.0} if what == "lifetime" else {"expires_at": time.time() + 100}
    member, ends_at = served(New(), **times).begin()
    left = ends_at - time.monotonic()
    assert (79.0 if what == "lifetime" else 99.0) < left <= 100.0
    assert member.expires == (what == "expiry")


def test_a_full_socket_gets_the_rest_when_it_can(served: Any) -> None:
    source = New()
    events, sent = source.group.counts.events, source.group.counts.bytes
    response = served(source, filled=True)
    member, _ = response.begin()
    assert member.descriptor not in source.group.streams
    data = response.received(until=chunk(OPENING))
    assert data.startswith(response.filled + b"HTTP/1.1 200 OK\r\n")
    gevent.sleep(0)
    assert member.descriptor in source.group.streams
    assert source.group.counts.bytes - sent == len(OPENING)
    assert source.group.counts.events - events == 1


def test_a_client_that_has_gone_meanwhile_is_forgotten(served: Any) -> None:
    source = New()
    response = served(source)
    response.client.close()
    member, _ = response.begin()
    deadline = time.monotonic() + SECONDS
    while member.descriptor in response.detached.table.streams:
        assert time.monotonic() < deadline
        gevent.sleep(0.001)
    assert not source.group.count
