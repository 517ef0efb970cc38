"""When a stream's bytes leave, and that its writer leaves nothing to the garbage collector."""

from __future__ import annotations

import contextlib
import gc
import socket
from collections.abc import Generator
from types import SimpleNamespace
from typing import Any

import gevent
import gevent.socket
from gunicorn.config import Config
from gunicorn.http.wsgi import Response

from sseflask.counters.counts import COUNTS
from sseflask.errors import Failure
from sseflask.transport.connection import Connection
from sseflask.transport.failures import failure_frame
from sseflask.transport.flusher import Flusher
from sseflask.transport.gunicorn.server_response import ServerResponse
from sseflask.transport.socket_writer import SocketWriter
from sseflask.transport.stream import Stream
from sseflask.transport.stream_greenlet import StreamGreenlet


def _raise(_path: str, error: Exception) -> Failure:
    raise error


def test_a_first_event_is_sent_before_the_items_go_on() -> None:
    flusher = Flusher.current()
    for _ in range(100):  # until it knows the loop, each event is sent by itself
        if not flusher._hook.reliable:
            gevent.sleep(0.001)
    ours, client = socket.socketpair()
    client.setblocking(False)
    received: list[bytes] = []

    def items() -> Generator[bytes, None, None]:
        for number in range(3):
            yield b"data: %d\n\n" % number
            with contextlib.suppress(BlockingIOError):
                received.append(client.recv(1 << 16))
        client.close()  # nobody is waited for at the end

    accepted = gevent.socket.socket(fileno=ours.detach())
    request: Any = SimpleNamespace(
        version=(1, 1),
        method="GET",
        headers=[],
        body=SimpleNamespace(),
        should_close=lambda: True,
    )
    response = Response(request, accepted, Config())
    start: Any = response.start_response
    made = items()
    stream = Stream(
        items=made,
        encode=bytes,
        status="200 OK",
        headers=[("Content-Type", "text/event-stream")],
        frames_only=False,
        heartbeat=15.0,
        first_byte=1.0,
        lifetime=0.0,
        expires_at=None,
        detachable=True,
        retry=None,
        retry_jitter=0,
        keeps_view=True,
        context=contextlib.nullcontext,
        path="/",
        reporter=_raise,
        failure_frame=failure_frame,
        response=made,
    )
    environ = {"gunicorn.socket": accepted, "PATH_INFO": "/"}
    body = Connection(stream, environ, start, ServerResponse(response))
    body.begin()
    body.close()
    accepted.close()
    first, *others = received
    assert others == [], "these are sent together"
    assert first.startswith(b"HTTP/1.1 200 OK\r\n")
    assert first.endswith(b"data: 0\n\n\r\n")


def _writers() -> int:
    return sum(type(each) is SocketWriter for each in gc.get_objects())


def test_it_is_freed_with_its_stream() -> None:
    ours, client = socket.socketpair()
    accepted = gevent.socket.socket(fileno=ours.detach())
    gc.disable()
    try:
        before = _writers()
        writer = SocketWriter(accepted, StreamGreenlet(), COUNTS.streams["stream"])
        assert _writers() == before + 1
        writer.close()
        del writer
        assert _writers() == before
    finally:
        gc.enable()
        accepted.close()
        client.close()
