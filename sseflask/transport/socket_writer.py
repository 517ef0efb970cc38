"""The bytes of one stream on their way to its client: buffered, framed in chunks, sent."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import gevent.socket

from sseflask.counters.counts import StreamCounts
from sseflask.transport import event_loop
from sseflask.transport.event_loop import Watcher
from sseflask.transport.sockets import (
    reset_when_closed,
    send_last,
    set_user_timeout,
    unacknowledged,
)
from sseflask.transport.source import Source
from sseflask.transport.stream_greenlet import StreamGreenlet
from sseflask.transport.timing import heartbeat_bytes, slow_after
from sseflask.wire import tail_of

_LAST_CHUNK = b"0\r\n\r\n"
_BLANK_LINE = b"\n\n"


def _send_anyway(descriptor: int, data: bytes | memoryview) -> int:
    with contextlib.suppress(OSError):
        os.write(descriptor, data)
    return len(data)


# An instance with a dictionary would take a kilobyte more, for each stream.
@dataclass(slots=True, eq=False)
class SocketWriter:
    """Writes one stream's socket. Belongs to the loop's thread.

    Attributes:
        buffer: body bytes that wait for `flush`.
        unsent: what the socket did not take yet.
        tail: the last bytes of the body that were sent or are on their way, heartbeats aside.
        last_progress: the monotonic time at which bytes last went out.
        chunked: whether the body is sent in chunks, ``None`` before the response has begun.
        events: how many items were buffered; the stream counts them.
        source: knows how many events these were; ``None`` if each item is one.
        events_sent: how many of them were sent.
    """

    socket: gevent.socket.socket
    greenlet: StreamGreenlet
    counts: StreamCounts
    descriptor: int = field(init=False)
    buffer: bytearray = field(default_factory=bytearray)
    unsent: memoryview | None = None
    tail: bytes = b""
    last_progress: float = 0.0
    chunked: bool | None = None
    unsent_head: bytes = b""
    body_sent: int = 0
    events: int = 0
    source: Source | None = None
    events_sent: int = 0
    _reusable: bool = False
    _write: Callable[[int, bytes | memoryview], int] = os.write
    _watcher: Watcher | None = None
    _unacknowledged: int | None = None

    def __post_init__(self) -> None:
        self.descriptor = self.socket.fileno()

    def begin(self, head: bytes, chunked: bool, reusable: bool) -> None:
        """Begin the response: send its head with the first bytes."""
        self.unsent_head = head
        self.chunked, self._reusable = chunked, reusable

    def start_user_timeout(self, heartbeat: float) -> None:
        """Let the system end the connection if the client acknowledges nothing for two heartbeats.

        By TCP_USER_TIMEOUT (RFC 5482): a heartbeat to a peer that vanished without a FIN fails
        then, and not after a quarter of an hour of retransmissions.
        """
        self.last_progress = time.monotonic()
        set_user_timeout(self.socket, slow_after(heartbeat))

    def close(self) -> None:
        """Give up the socket and what was to be sent on it."""
        self.greenlet.client_left = True  # the descriptor will be reused
        self.unsent = None
        self.buffer.clear()
        if self._watcher is not None:
            self._watcher.close()

    def flush(self, now: float | None = None) -> None:
        """Send the buffer as far as the socket takes it. Never blocks."""
        buffer = self.buffer
        if self.unsent is not None or self.greenlet.client_left:
            return
        if not buffer and not self.unsent_head:
            return
        self.tail = _BLANK_LINE if buffer.endswith(_BLANK_LINE) else tail_of(self.tail, buffer)
        if self.chunked and not self.unsent_head:
            # All flushes but the first: worth not going the general way. With thousands of streams
            # what costs most is memory that only one of them has: hence one tail and one time.
            size = len(buffer)
            data = b"%x\r\n%b\r\n" % (size, buffer)  # type: ignore[str-format]  # PEP 461: any bytes
            buffer.clear()
            source, counts = self.source, self.counts
            events = self.events if source is None else source.events
            counts.events += events - self.events_sent
            counts.bytes += size
            self.events_sent = events
            self.body_sent += size
            try:
                sent = self._write(self.descriptor, data)
            except OSError as error:
                sent = 0  # the general way finds out why
                self.greenlet.note_error(error)
            if sent == len(data):
                self.last_progress = now or time.monotonic()
            else:
                self._send(memoryview(data)[sent:])
        else:
            self._send_body(self._take_buffer())

    def add_failure(self) -> None:
        """An event that is no item is to be sent."""
        if self.source is None:
            self.events += 1
        else:
            self.source.events += 1

    def heartbeat(self) -> None:
        """Send a heartbeat if a line may begin here. Never blocks."""
        self.last_progress = time.monotonic()
        waits = self.unsent is not None or self.buffer or self.chunked is None
        if not waits and not self.greenlet.client_left and (beat := heartbeat_bytes(self.tail)):
            self._send_body(beat)

    def note_progress(self) -> None:
        """Note progress if the client has acknowledged something since the last call or flush."""
        waiting = unacknowledged(self.descriptor)
        if waiting != self._unacknowledged:
            self._unacknowledged, self.last_progress = waiting, time.monotonic()

    def end(self, last: bytes) -> None:
        """Send all with the last chunk; block until the client has taken it, has left or is cut."""
        if not self.greenlet.client_left:
            if not self._reusable:
                self._write = send_last
            self._send_body(self._take_buffer() + last, _LAST_CHUNK)
            self.wait_until_sent()

    def end_half_closed(self, last: bytes) -> None:
        """The same for a client that has closed its side. Sends what its socket takes at once."""
        if self.unsent is None:
            self._write = _send_anyway
            self._send_body(self._take_buffer() + last, _LAST_CHUNK)

    def wait_until_sent(self, *, or_stopping: bool = False) -> None:
        """Block until the socket has taken all, the client has left, or the stream is to end."""
        greenlet = self.greenlet
        while self.unsent is not None and not greenlet.client_left:
            if or_stopping and greenlet.stopping:
                return
            greenlet.wait()

    def abort(self) -> None:
        reset_when_closed(self.socket)
        self.greenlet.client_gone()

    def shut_down(self) -> None:
        """End the connection, whatever its client still expects. Never blocks."""
        with contextlib.suppress(OSError):  # it may have ended already
            self.socket.shutdown(socket.SHUT_RDWR)
        self.greenlet.client_left = True

    def _take_buffer(self) -> bytes:
        body = bytes(self.buffer)
        self.buffer.clear()
        return body

    def _send_body(self, body: bytes, last_chunk: bytes = b"") -> None:
        head, self.unsent_head = self.unsent_head, b""
        if not self.chunked:
            data = head + body
        elif body:
            data = b"%b%x\r\n%b\r\n%b" % (head, len(body), body, last_chunk)
        else:
            data = head + last_chunk
        self._count(len(body))
        self._send(data)

    def _count(self, size: int) -> None:
        self.body_sent += size
        counts = self.counts
        events = self.events if self.source is None else self.source.events
        counts.bytes += size
        counts.events += events - self.events_sent
        self.events_sent = events

    def _send(self, data: bytes | memoryview) -> None:
        try:
            sent = self._write(self.descriptor, data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self.unsent = None
            self.greenlet.client_gone(error)
            return
        if sent:
            self.last_progress = time.monotonic()
            self._unacknowledged = None
        if sent == len(data):
            self.unsent = None
            return
        self.unsent = memoryview(data)[sent:]
        if self._watcher is None:
            self._watcher = event_loop.watch(self.descriptor, event_loop.WRITE)
        if not self._watcher.active:
            self._watcher.start(self._on_writable)

    def _on_writable(self) -> None:
        if not self.greenlet.client_left:
            if self.unsent is not None:
                self._send(self.unsent)
            if self.unsent is None:
                self.flush()
            if self.unsent is not None:
                return
            self.greenlet.wake()
        if self._watcher is not None:
            self._watcher.stop()
