"""The socket of one stream: buffers, frames HTTP chunks, sends, and never blocks the hub."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import gevent
from gevent.event import Event as Signal

from sseflask.counters.counts import StreamCounts
from sseflask.transport.sockets import (
    LINGER_SECONDS,
    reset_when_closed,
    send_last,
    unacknowledged,
)
from sseflask.wire import HEARTBEAT, ends_line, tail_of

if TYPE_CHECKING:
    from sseflask.transport.gunicorn.response import ServerResponse

#: Bytes of the next request that are read while a stream runs, in order to see behind them that the
#: client leaves; then its socket is left alone, and leaving is noticed by writing.
_INPUT = 65536

#: Bytes of input that an ended stream still throws away while it waits for the client's own close.
_LINGER_INPUT = 1 << 20

#: What a gevent io watcher waits for: libev's EV_READ and EV_WRITE.
_READ, _WRITE = 1, 2

#: The largest value of TCP_USER_TIMEOUT, a C int.
_MOST_MILLISECONDS = 2**31 - 1

_LAST_CHUNK = b"0\r\n\r\n"
_ENDED = b"\n\n"
_NO_TIMEOUT = 0


def _send_anyway(descriptor: int, data: bytes | memoryview) -> int:
    with contextlib.suppress(OSError):
        os.write(descriptor, data)
    return len(data)


class Counter(Protocol):
    """What knows how many events there are in the frames that were buffered."""

    events: int


class Outlet:
    """Takes a stream's bytes to its client. Belongs to the hub's thread.

    Attributes:
        buffer: body bytes that wait for `flush`; the stream appends to it.
        unsent: what the socket did not take yet, or ``None``.
        tail: the last bytes of the body that were sent or are on their way, heartbeats aside.
        last_progress: the monotonic time at which bytes last went out.
        chunked: whether the body is sent in chunks, once the headers are taken.
        reusable: whether the client may send its next request on the same connection, once the
            headers are taken.
        half_closed: the client has closed its side. It counts as leaving, but may still read.
        left: nothing can be sent any more: the client has gone, or the socket is not ours now.
        timed_out: the system has ended the connection, as the client acknowledged nothing.
        body_sent: bytes of the body that were sent.
        events: how many items were buffered; the stream counts them.
        counter: how many events these were; the outlet itself, where each item is one.
        counted: how many of them were sent.
    """

    __slots__ = (
        "_counts",
        "_discarded",
        "_early",
        "_fd",
        "_head",
        "_heartbeat",
        "_lingering",
        "_on_left",
        "_readable",
        "_server",
        "_socket",
        "_waiting",
        "_wake",
        "_writable",
        "_write",
        "body_sent",
        "buffer",
        "chunked",
        "counted",
        "counter",
        "events",
        "half_closed",
        "last_progress",
        "left",
        "reusable",
        "tail",
        "timed_out",
        "unsent",
    )

    def __init__(
        self,
        client: gevent.socket.socket,
        server: ServerResponse,
        on_left: Callable[[], None],
        counts: StreamCounts,
    ) -> None:
        self.buffer = bytearray()
        self.unsent: memoryview | None = None
        self.tail = b""
        self.last_progress = 0.0
        self.left = False
        self.timed_out = False
        self.body_sent = 0
        self.events = 0
        self.counter: Counter = self
        self.counted = 0
        self._counts = counts
        self._socket = client
        self._fd: int = client.fileno()
        self._server = server
        self._on_left = on_left
        self._heartbeat = 0.0
        self._write: Callable[[int, bytes | memoryview], int] = os.write
        self.chunked = False
        self.reusable = False
        self.half_closed = False
        self._head = b""
        self._early = bytearray()
        self._lingering = False
        self._discarded = 0
        self._waiting = -1
        self._wake: Signal | None = None
        self._readable: Any = None
        self._writable: Any = None

    @property
    def patience(self) -> float:
        """Seconds without progress after which something has to happen."""
        return self._heartbeat if self.unsent is None else 2 * self._heartbeat

    def open(self, heartbeat: float, watch_input: bool) -> None:
        """Watch the socket.

        Args:
            heartbeat: seconds; a peer that acknowledges nothing for two of them is gone.
            watch_input: whether what comes in is of the next request. It is not while a part of the
                request body is still to come; the client's leaving is then noticed by writing only.
        """
        self._heartbeat = heartbeat
        self.last_progress = time.monotonic()
        loop = gevent.get_hub().loop
        self._readable = loop.io(self._fd, _READ)
        if watch_input:
            self._readable.start(self._on_readable)
        if self._socket.family in (socket.AF_INET, socket.AF_INET6):
            # A heartbeat to a peer that vanished without a FIN fails after this (RFC 5482) and
            # not after a quarter of an hour of retransmissions.
            self._socket.setsockopt(
                socket.IPPROTO_TCP,
                socket.TCP_USER_TIMEOUT,
                min(max(1, int(heartbeat * 2000)), _MOST_MILLISECONDS),
            )

    def still_takes(self) -> bool:
        """Whether the client has acknowledged something since this was last asked: the kernel tells
        of room only when there is a lot of it."""
        waiting, before = unacknowledged(self._fd), self._waiting
        self._waiting = waiting
        if waiting == before:
            return False
        self.last_progress = time.monotonic()
        return True

    def close(self) -> None:
        """Let go of the socket, which gunicorn closes, and of what was to be sent."""
        self.left = True  # the descriptor's number will soon be somebody else's
        self.unsent = None
        self.buffer.clear()
        if self.body_sent:
            self._server.count_sent(self.body_sent)
        for watcher in (self._readable, self._writable):
            if watcher is not None:
                watcher.close()

    def detach(self) -> int:
        """Give the socket's descriptor away, and with it the duty to close it."""
        self.close()
        # Not a copy: libev would go on to watch for what nobody here waits for any more.
        return self._socket.detach()

    def take_over(self) -> None:
        """The response's headers are settled: have them leave with the next bytes."""
        self._head, self.chunked, self.reusable = self._server.take_over()

    def flush(self, now: float | None = None) -> None:
        """Send the buffer as far as the socket takes it. Never blocks.

        Args:
            now: the monotonic time, where it is known.
        """
        buffer = self.buffer
        if self.unsent is not None or self.left or not (buffer or self._head):
            return
        size = len(buffer)
        self.tail = _ENDED if buffer.endswith(_ENDED) else tail_of(self.tail, buffer)
        if self.chunked and not self._head:
            # All flushes but the first: worth not going the general way. With thousands of streams
            # what costs most is memory that only one of them has: hence one tail and one time.
            data = b"%x\r\n%b\r\n" % (size, buffer)  # type: ignore[str-format]  # PEP 461: any bytes
            buffer.clear()
            self._count(size)
            try:
                sent = self._write(self._fd, data)
            except OSError as error:
                sent = 0  # the general way finds out why
                self._note(error)
            if sent == len(data):
                self.last_progress = now or time.monotonic()
            else:
                self._send(memoryview(data)[sent:])
        else:
            self._send_body(self._take_buffer())

    def heartbeat(self) -> None:
        """Send a heartbeat if a line may begin here. Never blocks."""
        self.last_progress = time.monotonic()
        if self.unsent is None and not self.buffer and not self.left and ends_line(self.tail):
            self._send_body(HEARTBEAT)

    def end(self, last: bytes) -> None:
        """Send what is buffered, the last bytes and the last chunk; `keep` or `linger` follows.

        Blocks until the client has taken them, has left, or is cut.
        """
        if not self.left:
            if not self.reusable:
                self._write = send_last
            self._send_body(self._take_buffer() + last, _LAST_CHUNK)
            self.wait_until_sent()

    def say_goodbye(self, last: bytes) -> None:
        """Answer a client that has closed its side, as far as its socket takes it at once."""
        if self.unsent is not None:
            return  # it is in the middle of something
        self._write = _send_anyway
        self._send_body(self._take_buffer() + last, _LAST_CHUNK)

    def keep(self) -> None:
        """The stream has come to a good end: leave the connection to the next request."""
        self._server.keep_open()
        if self._socket.family in (socket.AF_INET, socket.AF_INET6):
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _NO_TIMEOUT)

    def next_request_within(self, seconds: float) -> bool:
        """Block until the client has sent something or has left; whether it has sent something."""
        if not self._early and not self.left:
            if not self._readable.active:
                self._readable.start(self._on_readable)
            self._wake = Signal()
            self._wake.wait(seconds)
        return bool(self._early) and not self.left

    def give_input_back(self) -> None:
        """Let gunicorn's parser have what was read of the next request, behind what it has."""
        if self._early:
            self._server.append_to_next_request(self._early)
            self._early.clear()

    def input(self) -> bytes:
        """What was read of the next request, by gunicorn's parser and here."""
        return self._server.next_request + self._early

    def linger(self) -> None:
        """Close our side and give the client a little time to close its own."""
        if self.left:
            return
        self._lingering = True
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            return  # the client was faster
        self._discarded = _INPUT - _LINGER_INPUT
        if not self._readable.active:
            self._readable.start(self._on_readable)
        self._wake = Signal()
        self._wake.wait(LINGER_SECONDS)

    def wait_until_sent(self, or_until: Callable[[], bool] = bool) -> None:
        """Block until the socket has taken all, the client has left, or ``or_until()``."""
        while self.unsent is not None and not self.left and not or_until():
            self._wake = Signal()
            self._wake.wait()

    def wake_up(self) -> None:
        """Make a waiting greenlet look again."""
        if self._wake is not None:
            self._wake.set()

    def abort(self) -> None:
        """Give up on a client that takes nothing."""
        reset_when_closed(self._socket)
        self._leave()

    def shut_down(self) -> None:
        """End the connection, whatever its client still expects. Never blocks."""
        with contextlib.suppress(OSError):  # it may have ended already
            self._socket.shutdown(socket.SHUT_RDWR)
        self.left = True

    def _take_buffer(self) -> bytes:
        body = bytes(self.buffer)
        self.buffer.clear()
        return body

    def _send_body(self, body: bytes, last_chunk: bytes = b"") -> None:
        if not self.chunked:
            data = self._head + body
        elif body:
            data = b"%b%x\r\n%b\r\n%b" % (self._head, len(body), body, last_chunk)
        else:
            data = self._head + last_chunk
        self._head = b""
        self._count(len(body))
        self._send(data)

    def _count(self, size: int) -> None:
        self.body_sent += size
        counts, events = self._counts, self.counter.events
        counts.bytes += size
        counts.events += events - self.counted
        self.counted = events

    def _send(self, data: bytes | memoryview) -> None:
        try:
            sent = self._write(self._fd, data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._note(error)
            self._leave()
            return
        if sent:
            self.last_progress = time.monotonic()
        if sent == len(data):
            self.unsent = None
            return
        self.unsent = memoryview(data)[sent:]
        if self._writable is None:
            self._writable = gevent.get_hub().loop.io(self._fd, _WRITE)
        if not self._writable.active:
            self._writable.start(self._on_writable)

    def _on_writable(self) -> None:
        if self.unsent is not None:
            self._send(self.unsent)
        if self.unsent is None:
            self.flush()
        if self.unsent is None:
            self._writable.stop()
            self.wake_up()

    def _on_readable(self) -> None:
        try:
            data = os.read(self._fd, 65536)
        except BlockingIOError:
            return
        except OSError as error:
            self._note(error)
            data = b""
        if not data:
            self.half_closed = self.unsent is None
            self._leave()
            return
        self._discarded += len(data)
        if not self._lingering:
            self._early += data
            self.wake_up()
        if self._discarded > _INPUT:
            self._readable.stop()

    def _note(self, error: OSError) -> None:
        # Told once: whoever asks next is told of a broken pipe.
        self.timed_out = self.timed_out or error.errno == errno.ETIMEDOUT

    def _leave(self) -> None:
        if not self.left:
            self.left = True
            self.unsent = None
            self._readable.stop()
            if self._writable is not None:
                self._writable.stop()
            self.wake_up()
            self._on_left()
