"""Connections of which httpcore reads the heads of responses, and no byte behind them.

A network backend for httpcore: its public way to bring connections of one's own. Bytes behind a
response are never given to httpcore either. It would take them for the response to the connection's
next request, which may be another user's.
"""

from __future__ import annotations

import contextlib
import re
import select
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import httpcore2

from sseflask.completions.chunked import Dechunker
from sseflask.loop.callbacks import cooperative, yield_to_loop
from sseflask.loop.native import original

_EV_READ = 1  # libev's

#: Bytes of one read, as many as a TLS record has. Other streams wait while they are looked at.
_READ_SIZE = 16_384
#: Bytes of a response's head, with all provisional responses before it.
_MAX_HEAD = 262_144
#: The end of a head (RFC 9112, section 2.2: a line may end with a bare LF).
_BLANK_LINE = re.compile(rb"\n\r?\n")


class Backend(httpcore2.SyncBackend):
    def connect_tcp(self, *args: Any, **kwargs: Any) -> UpstreamConnection:
        return UpstreamConnection(super().connect_tcp(*args, **kwargs))


class UpstreamConnection(httpcore2.NetworkStream):
    """A connection whose `read` stops at the end of a head, and of a body with a length.

    Not thread-safe: httpcore's pool gives it to one request at a time.

    Attributes:
        body_left: bytes that follow the head that has been read; perhaps infinite.
    """

    def __init__(self, stream: httpcore2.NetworkStream, *, nested_tls: bool = False) -> None:
        self._stream = stream
        self._socket: Any = stream.get_extra_info("socket")
        self._nested_tls = nested_tls
        self._unread = b""
        self.body_left = 0.0
        self._head_tail = b""
        self._head_bytes = 0
        self._head_deadline = 0.0

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        # All heads of a response have to come within the timeout.
        in_body = self.body_left > 0
        data = self._unread or self._stream.read(
            min(max_bytes, _READ_SIZE), timeout if in_body else self._head_timeout(timeout)
        )
        if in_body:
            end = int(min(len(data), self.body_left))
            self.body_left -= end
        else:
            end = self._end_of_head(data)
        self._unread = data[end:]
        return data[:end]

    def _head_timeout(self, timeout: float | None) -> float | None:
        if timeout is None:
            return None
        now = time.monotonic()
        self._head_deadline = self._head_deadline or now + timeout
        if now > self._head_deadline:  # it may come a byte at a time
            raise httpcore2.ReadTimeout("the head of the response has not come in time")
        return min(timeout, self._head_deadline - now)

    def _end_of_head(self, data: bytes) -> int:
        """How much of some bytes belongs to the head that is being read."""
        seen = self._head_tail + data
        blank_line = _BLANK_LINE.search(seen)
        end = len(data) if blank_line is None else blank_line.end() - len(self._head_tail)
        self._head_tail = seen[-2:] if blank_line is None else b""
        self._head_bytes += end
        if self._head_bytes > _READ_SIZE:
            give_way()
        if self._head_bytes > _MAX_HEAD:
            raise httpcore2.ReadError("the head of the response has no end")
        return end

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._head_bytes, self._head_deadline = 0, 0.0  # of the response to this request
        self._stream.write(buffer, timeout)

    def start_tls(self, *args: Any, **kwargs: Any) -> UpstreamConnection:
        nested = isinstance(self._socket, ssl.SSLSocket)
        try:
            stream = self._stream.start_tls(*args, **kwargs)
        except BaseException:
            self.close()
            raise
        return UpstreamConnection(stream, nested_tls=nested)

    def close(self) -> None:
        self._stream.close()

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable" and self._unread:
            return True
        if info != "is_readable" or self._socket is None or self._socket.fileno() < 0:
            return self._stream.get_extra_info(info)
        # httpcore asks this of each idle connection before a request. gevent's own poll would let
        # all other greenlets run first.
        poll = original("select", "poll")()
        poll.register(self._socket.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def body(
        self, chunks: Dechunker | None, timeouts: Mapping[str, float | None]
    ) -> Iterator[bytes]:
        """Read a body without httpcore; only the last chunk is left to it.

        Under gevent each read waits for the socket first. A token comes long after the one before
        it, so the read that gevent's socket tries at once would nearly always fail. Waiting also
        lets other greenlets run beside an upstream that never pauses.

        Args:
            chunks: decodes its chunks; ``None`` if it ends with the connection.
            timeouts: the request's. ``read`` is looked at once, when the body is begun: no read
                blocks for longer.
        """
        with self._receiving(timeouts.get("read")) as receive:
            piece = self._unread or receive()
            while piece:
                data = piece if chunks is None else chunks.feed(piece)
                if data:
                    yield data
                if chunks is not None and chunks.stopped:
                    break
                piece = receive()
        self._unread = b"" if chunks is None else chunks.rest()

    @contextlib.contextmanager
    def _receiving(self, timeout: float | None) -> Iterator[Callable[[], bytes]]:
        if not self._can_wait():
            yield lambda: self._receive(timeout)
            return
        from gevent import get_hub
        from gevent.socket import wait

        late = httpcore2.ReadTimeout("nothing has come in time")
        self._socket.settimeout(timeout)  # there may be but a part of a TLS record
        receive = self._socket.recv
        # TLS takes a whole record off the socket. Its rest does not make the socket readable.
        pending = getattr(self._socket, "pending", None)
        readable = get_hub().loop.io(self._socket.fileno(), _EV_READ)

        def read() -> bytes:
            if pending is None or not pending():
                wait(readable, timeout, late)
            try:
                data: bytes = receive(_READ_SIZE)
            except TimeoutError:
                raise late from None
            except OSError as error:
                raise httpcore2.ReadError(str(error)) from error
            return data

        try:
            yield read
        finally:
            readable.close()

    def _can_wait(self) -> bool:
        """Whether gevent can say when there is something to read."""
        if not cooperative() or self._nested_tls:
            return False
        from gevent.socket import socket

        return isinstance(self._socket, socket)

    def _receive(self, timeout: float | None) -> bytes:
        give_way()
        return self._stream.read(_READ_SIZE, timeout)


def give_way() -> None:
    """Let other greenlets run. Reading what is there already does not."""
    if cooperative():
        yield_to_loop()
