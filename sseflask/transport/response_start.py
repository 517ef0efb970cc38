"""The beginning of a stream's response: with its first event, or before if that is late."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gevent.event import Event as Signal

from sseflask.transport import accounting
from sseflask.transport.socket_writer import SocketWriter
from sseflask.transport.stream import Stream

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from sseflask.transport.gunicorn.response import Head, ServerResponse


@dataclass(slots=True, eq=False)
class ResponseStart:
    """Calls ``start_response`` once. Belongs to the loop's thread.

    Attributes:
        begun: it has been called.
        head: the response's head, unless the response is `diverted`.
        late: set once the call in a greenlet of its own is over; ``None`` if there is none.
        error: what that call has raised.
        diverted: middleware holds the headers back, or changes them to describe another body.
        log_fields: what the stream's end is logged with.
        counted: the stream is counted as open, and its end has to be.
    """

    stream: Stream
    environ: WSGIEnvironment
    start_response: StartResponse
    server: ServerResponse
    writer: SocketWriter
    begun: bool = False
    head: Head | None = None
    late: Signal | None = None
    error: Exception | None = None
    diverted: bool = False
    log_fields: accounting.LogFields | None = None
    counted: bool = False

    def begin(self) -> None:
        """Call ``start_response``, and take the head from gunicorn."""
        self.start_response(self.stream.status, self.stream.all_headers)
        self.begun = True
        if self.server.describes_stream(self.stream.status):
            self.head = self.server.take_over()
            self.writer.begin(self.head.data, self.head.chunked, self.head.reusable)
        else:
            self.diverted = True
        self.log_fields = accounting.opened(self.stream.kind, self.environ)
        self.counted = True
