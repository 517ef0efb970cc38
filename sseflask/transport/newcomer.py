"""A subscriber on our own worker that lacks nothing: it is in its group with one write.

Most clients of a channel come without a cursor, or after a deploy with the newest one. Their
response is a head and a few bytes at most, so that there is nothing to wait for: no reader, no
timer, no buffer is made for them. Whoever is to get more takes the way of `SourceConnection`, which
gives back its greenlet as soon as it can.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sseflask.transport import accounting
from sseflask.transport.connection import Connection
from sseflask.transport.detached.group import DetachedStream, Piece
from sseflask.transport.detached.registry import DetachedStreams
from sseflask.transport.flusher import Flusher
from sseflask.transport.gunicorn.drain import worker_drain
from sseflask.transport.sockets import set_user_timeout
from sseflask.transport.source import Source
from sseflask.transport.source_connection import SourceConnection
from sseflask.transport.stream import Body, Stream
from sseflask.transport.timing import StreamClock, slow_after
from sseflask.wire import events_in

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from sseflask.transport.gunicorn.server_response import Adopt, ServerResponse


@dataclass(slots=True, eq=False)
class Newcomer(Body):
    """The body of a source's response, whose stream the worker may adopt before it is read."""

    source: Source
    server: ServerResponse
    adopt: Adopt
    _connection: SourceConnection | None = field(init=False, default=None)

    def begin(self) -> None:
        if not self._joins():
            self._connection = SourceConnection(
                self.stream, self.environ, self.start_response, self.server
            )
            self._connection.begin()

    def __next__(self) -> bytes:
        if self._connection is None:
            raise StopIteration
        return next(self._connection)

    def close(self) -> None:
        if self._connection is None:
            self.stream.response.close()
        else:
            self._connection.close()

    def _joins(self) -> bool:
        """Whether the stream is in its group. Otherwise nothing has happened. Never blocks."""
        stream, environ, server, source = self.stream, self.environ, self.server, self.source
        if (
            not source.may_join_at_once
            or worker_drain.draining
            or "CONTENT_LENGTH" in environ
            or "HTTP_TRANSFER_ENCODING" in environ
            or not server.start_plain(stream.status, stream.all_headers, self.start_response)
        ):
            return False
        joined = source.join_at_once(server.chunked, stream.heartbeat)
        if joined is None:
            server.reset()
            return False
        # Up to the adoption nothing switches: the group may be sent something at any moment.
        opening, group = joined
        group.retry_jitter = stream.retry_jitter
        head = server.take_over(environ)
        body = stream.opening + opening
        data = head.data + group.piece(body, 0).data if body else head.data
        client: Any = environ["gunicorn.socket"]
        set_user_timeout(client, slow_after(stream.heartbeat))
        clock = StreamClock(stream)
        Flusher.current().computations.begin(clock.began)
        record = DetachedStream(client.detach(), group, clock.began, len(body))
        if head.reusable and not server.has_proxy_line:
            record.listener = client.connection and client.connection.listener
        ends_at = math.inf
        if stream.lifetime or stream.expires_at is not None:
            ends_at, due = clock.end(clock.began)
            record.expires = due == "expiry"
        sent = _write(record.descriptor, data)
        server.adopted = True
        self.adopt(record, ends_at, server, environ)
        if sent == len(data):
            group.counts.bytes += len(body)
        else:
            rest = Piece(data, len(body), events_in(body))
            DetachedStreams.current().keep_rest(record, rest, sent)
        record.log_fields = accounting.opened(source.kind, environ)
        return True


def connection(
    stream: Stream, environ: WSGIEnvironment, start_response: StartResponse, server: ServerResponse
) -> Body:
    """Give the body that writes the socket itself."""
    if stream.source is None:
        return Connection(stream, environ, start_response, server)
    if server.adopt is None or not stream.detachable:
        return SourceConnection(stream, environ, start_response, server)
    return Newcomer(stream, environ, start_response, stream.source, server, server.adopt)


def _write(descriptor: int, data: bytes) -> int:
    """Write what the socket takes; a client that has gone is found out when its rest is written."""
    try:
        return os.write(descriptor, data)
    except OSError:
        return 0
