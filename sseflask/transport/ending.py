"""How a stream on a connection ends: why, and what its client is sent last."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from sseflask.counters.counts import Reason
from sseflask.errors import Failure
from sseflask.transport.failures import half_closed, shutting_down, token_expired
from sseflask.transport.socket_writer import SocketWriter
from sseflask.transport.stream import Stream, reconnect_line
from sseflask.wire import ends_event, tail_of

log = logging.getLogger("sseflask")

#: The failures of a stream that are not its own.
_REASONS: dict[str | None, Reason] = {
    token_expired().code: "expired",
    shutting_down().code: "drain",
}


@dataclass(slots=True)
class Ending:
    """What is known of a stream's end. Belongs to the loop's thread.

    Attributes:
        failure: it ends with this error.
        reconnect_wanted: it is to end as soon as its client can resume.
        reconnects: it ends here, as its client can resume.
        with_others: other clients reconnect at the same moment.
        slow: its client is cut.
        complete: the items have come to their end.
        reason: why it has ended; set by `last_bytes`.
    """

    failure: Failure | None = None
    reconnect_wanted: bool = False
    reconnects: bool = False
    with_others: bool = False
    slow: bool = False
    complete: bool = False
    reason: Reason = "left"

    def last_bytes(
        self, stream: Stream, writer: SocketWriter, resumable: bool, path: str
    ) -> bytes | None:
        """Give the last bytes of the body, and set the reason.

        Args:
            stream: the stream.
            writer: all that its client is to get before has been sent, or the client has left.
            resumable: whether the client can resume.
            path: the request's, for the log.

        Returns:
            ``None`` if the body must not be completed.
        """
        self.reason = self._reason(stream, writer)
        if self.slow:
            log.info("a client of %r took nothing for two heartbeats; its stream was cut", path)
        if writer.greenlet.client_left:
            return self._last_of_half_closed(stream, writer, resumable)
        if self.failure is not None:
            if not ends_event(writer.tail):
                # An event is half sent. Any more text would complete it with wrong data, so
                # the only honest end is a body without its last chunk.
                log.warning("the stream of %r failed inside an event; its body was cut there", path)
                return None
            writer.counter.events += 1
            return stream.failure_frame(self.failure)
        if self.reconnects and self.with_others:
            return reconnect_line(stream.retry_jitter)
        return b""

    def _reason(self, stream: Stream, writer: SocketWriter) -> Reason:
        if self.slow or writer.greenlet.timed_out:
            return "slow"
        if writer.greenlet.client_left:
            return "left"
        if self.failure is not None:
            return _REASONS.get(self.failure.code, "failed")
        if self.reconnects:
            return "drain" if self.with_others else "lifetime"
        return "done" if stream.source is None else stream.source.reason

    def _last_of_half_closed(
        self, stream: Stream, writer: SocketWriter, resumable: bool
    ) -> bytes | None:
        """A client that has only closed its side gets a proper end of what it was sent."""
        if not writer.greenlet.half_closed:
            return None
        if self.complete or resumable:
            return b""
        whole = ends_event(tail_of(writer.tail, writer.buffer))
        return stream.failure_frame(self.failure or half_closed()) if whole else None
