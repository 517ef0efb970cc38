"""Advances a stream's iterable and buffers its frames: the hot path of a connection.

The first frame begins the response. It also knows how the stream ends: why, and with which bytes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sseflask.counters.counts import Reason
from sseflask.errors import Failure
from sseflask.event import Event
from sseflask.transport import accounting
from sseflask.transport.failures import half_closed, shutting_down, token_expired
from sseflask.transport.flusher import SLICE_SECONDS, Flusher
from sseflask.transport.socket_writer import SocketWriter
from sseflask.transport.stream import Stream, can_resume_after, reconnect_line
from sseflask.transport.stream_greenlet import BUFFER, StreamGreenlet
from sseflask.wire import encode, ends_event, tail_of

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment
    from gevent.event import Event as Signal

    from sseflask.transport.gunicorn.server_response import ServerResponse


log = logging.getLogger("sseflask")

#: The failures of a stream that are not its own.
_REASONS: dict[str | None, Reason] = {
    token_expired().code: "expired",
    shutting_down().code: "drain",
}


class Stop(Exception):
    """Raised between two items: the stream is to end."""


class Diverted(Exception):
    """Raised between two items: middleware keeps the response, so all has to pass through it."""


@dataclass(slots=True, eq=False)
class ItemSender:
    """Sends the items of one stream. Belongs to the loop's thread.

    Attributes:
        opening: what is still to precede the first event.
        reusable: whether the client may send its next request on the same connection.
        started: ``start_response`` has been called.
        under_way: head and opening have been buffered or sent: what comes now is the next item.
        late_start: set when another greenlet has called it, as the first event was late.
        start_error: what that greenlet has raised.
        diverted: middleware holds the headers back, or changes them to describe another body.
        counted: the stream is counted as open, and its end has to be.
        items: what is left of the items, once they have been begun.
        after_id: the last item was an event after whose id the client can resume.
        reconnect_wanted: it is to end as soon as its client can resume.
        reconnects: it ends here, as its client can resume.
        with_others: other clients reconnect at the same moment.
        complete: the items have come to their end.
    """

    stream: Stream
    environ: WSGIEnvironment
    start_response: StartResponse
    server: ServerResponse
    writer: SocketWriter
    flusher: Flusher = field(default_factory=Flusher.current)
    greenlet: StreamGreenlet = field(init=False)
    opening: bytes = field(init=False)
    reusable: bool = False
    late_start: Signal | None = None
    start_error: Exception | None = None
    started: bool = False
    under_way: bool = False
    diverted: bool = False
    counted: bool = False
    log_fields: accounting.LogFields | None = None
    began: float = 0.0
    items: Iterator[Any] | None = None
    after_id: bool = False
    failure: Failure | None = None
    reconnect_wanted: bool = False
    reconnects: bool = False
    with_others: bool = False
    slow: bool = False
    complete: bool = False
    reason: Reason = "left"

    def __post_init__(self) -> None:
        self.greenlet = self.writer.greenlet
        self.opening = self.stream.opening

    def send(self, first_only: bool = False) -> bool:
        """Advance the items and buffer their frames. Returns whether it stopped after the first.

        Blocks as they do, and for a slow client.

        Raises:
            Stop: the stream is to end.
            Diverted: the response is not gunicorn's own.
        """
        # Local, as far as it goes: with many streams it is their memory that takes time.
        encode_other, flusher, clock = self.stream.encode, self.flusher, time.monotonic
        writer, greenlet, environ = self.writer, self.greenlet, self.environ
        buffer = writer.buffer
        idle_until = 0.0
        if self.items is None:
            self.items = iter(self.stream.items)
        items = self.items
        if greenlet.stopping:
            raise Stop
        greenlet.advancing = True
        try:
            for item in items:
                kind = item.__class__
                if kind is bytes:
                    frame, self.after_id = item, False
                elif kind is Event:
                    frame, self.after_id = encode(item), bool(item._id)
                elif kind is str:
                    frame, self.after_id = encode_other(item), False
                else:
                    frame, self.after_id = encode_other(item), can_resume_after(item)
                if buffer:
                    buffer += frame
                    writer.events += 1
                    if greenlet.may_end or len(buffer) >= BUFFER or clock() >= flusher.deadline:
                        self._give_way()
                elif frame:
                    buffer += frame
                    writer.events += 1
                    if not self.under_way:
                        self._flush_first()
                    elif flusher.take(writer, environ) or greenlet.may_end or len(frame) >= BUFFER:
                        self._give_way()
                    if first_only:
                        return True
                elif greenlet.may_end or clock() >= idle_until:
                    # Empty pieces are nothing to send, but must not keep the loop to themselves.
                    self._give_way()
                    idle_until = clock() + SLICE_SECONDS
                # The items may wait for hours, and these may be large.
                del item, frame
        finally:
            greenlet.advancing = False
        self.complete = True
        return False

    def send_opening(self) -> None:
        """Send the head without an event, as nobody knows when the next one comes."""
        self.begin_response()
        self.writer.buffer += self.opening
        self.opening = b""
        self.flusher.add(self.writer, time.monotonic())

    def begin_response(self) -> None:
        """Begin the response, unless that has been done when its first event was late.

        Raises:
            Stop: it could not be begun.
            Diverted: the response is not gunicorn's own.
        """
        if self.late_start is not None:
            self.greenlet.wait_for(self.late_start)
            if not self.started:
                raise Stop
        elif not self.started:
            self.start_now()
        if self.diverted:
            raise Diverted

    def start_now(self) -> None:
        """Call ``start_response``, or do the same, and take the head from gunicorn."""
        status, headers = self.stream.status, self.stream.all_headers
        is_plain = self.server.start_plain(status, headers, self.start_response)
        if not is_plain:
            self.start_response(status, headers)
        self.started = True
        if is_plain or self.server.describes_stream(status):
            head = self.server.take_over(self.environ)
            self.reusable = head.reusable
            self.writer.begin(*head)
            self.server.share_headers()
            self.stream.forget_beginning()
        else:
            self.diverted = True
        self.log_fields = accounting.opened(self.stream.kind, self.environ)
        self.counted = True

    def _flush_first(self) -> None:
        """Begin the response, and flush the buffer, which has the first item."""
        flusher = self.flusher
        fresh = not self.started
        self.begin_response()
        if self.opening:
            self.writer.buffer[:0] = self.opening
            self.opening = b""
        self.under_way = True
        late = flusher.take(self.writer, self.environ)
        if fresh and len(self.writer.buffer) < BUFFER:
            self.writer.flush()  # its client waits for it, whatever the items go on with
        if self.greenlet.may_end or len(self.writer.buffer) >= BUFFER:
            self._give_way()
        elif late:
            if fresh and time.monotonic() < self.began + SLICE_SECONDS:
                # Others have held the loop, in a storm of requests; this generator has not.
                flusher.flush()
            else:
                self._give_way()

    def _give_way(self) -> None:
        """The buffer is full, events have waited long enough, or the stream is asked to end."""
        greenlet = self.greenlet
        self.flusher.computations.check(time.monotonic(), self.environ)
        self.flusher.flush()
        if self.reconnect_wanted and self.resumable:
            self.reconnects = greenlet.stopping = True
        if greenlet.stopping:
            raise Stop
        if len(self.writer.buffer) >= BUFFER:
            self.writer.wait_until_sent(or_stopping=True)
        else:
            greenlet.yield_to_loop()
        if greenlet.stopping:
            raise Stop

    # -- ways to end it, from anywhere, never blocking -----------------------------------------

    @property
    def resumable(self) -> bool:
        """Whether the client can resume elsewhere from just here."""
        source = self.stream.source
        return self.after_id if source is None else source.resumable

    def rotate(self, with_others: bool) -> None:
        self.with_others = self.with_others or with_others
        if self.reconnect_wanted:
            return
        self.reconnect_wanted = True
        self.greenlet.may_end = True
        if self.resumable:
            self.reconnects = True
            self.greenlet.stop()

    def fail(self, failure: Failure) -> None:
        if not self.greenlet.stopping:
            self.failure = failure
            self.greenlet.stop()

    # -- its end -------------------------------------------------------------------------------

    def last_bytes(self) -> bytes | None:
        """Set the reason, and give the last bytes; ``None`` if the body must not be completed.

        All that the client is to get before has been sent, or the client has left.
        """
        stream, writer = self.stream, self.writer
        path = self.environ.get("PATH_INFO", "")
        self.reason = self._reason()
        if self.slow:
            log.info("a client of %r took nothing for two heartbeats; its stream was cut", path)
        if self.greenlet.client_left:
            return self._last_of_half_closed()
        if self.failure is not None:
            if not ends_event(writer.tail):
                # An event is half sent. Any more text would complete it with wrong data, so
                # the only honest end is a body without its last chunk.
                log.warning("the stream of %r failed inside an event; its body was cut there", path)
                return None
            writer.add_failure()
            return stream.failure_frame(self.failure)
        if self.reconnects and self.with_others:
            return reconnect_line(stream.retry_jitter)
        return b""

    def _reason(self) -> Reason:
        if self.slow or self.greenlet.timed_out:
            return "slow"
        if self.greenlet.client_left:
            return "left"
        if self.failure is not None:
            return _REASONS.get(self.failure.code, "failed")
        if self.reconnects:
            return "drain" if self.with_others else "lifetime"
        source = self.stream.source
        return "done" if source is None else source.reason

    def _last_of_half_closed(self) -> bytes | None:
        """A client that has only closed its side gets a proper end of what it was sent."""
        if not self.greenlet.half_closed:
            return None
        if self.complete or self.resumable:
            return b""
        whole = ends_event(tail_of(self.writer.tail, self.writer.buffer))
        return self.stream.failure_frame(self.failure or half_closed()) if whole else None
