"""The body of an upstream's stream, read from its socket past the layers that parse and count."""

from __future__ import annotations

import contextlib
import math
import re
import select
import ssl
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

import httpcore2
import httpx2

from sseflask.completions.chunked import Dechunker
from sseflask.loop.callbacks import cooperative
from sseflask.loop.native import original

__all__ = ["body", "watch_connections", "watch_responses"]

_READ = 1  # libev's EV_READ

#: Bytes taken at once, as many as a TLS record has: with more, others wait the longer while frames
#: are looked at.
_AT_ONCE = 16_384

#: Bytes of all heads before a response: any number of provisional ones may come.
_MOST_IN_HEADS = 262_144

# Where h11, the client's parser, sees a head end.
_BLANK_LINE = re.compile(rb"\n\r?\n")
_INSTEAD = ("read", "write", "start_tls", "get_extra_info", "close")
#: Statuses of responses that have none, whatever their heads say (RFC 9112, section 6.3).
_WITHOUT_BODY = (204, 304)
_MADE = (".connect_tcp.complete", ".start_tls.complete")


def watch_connections(request: httpx2.Request) -> None:
    """Before a request is sent: have the connection that may be made for it read as `body` needs.

    By httpcore's ``trace`` extension, which is given each new connection.
    """
    request.extensions["trace"] = _trace


def _trace(name: str, info: Mapping[str, Any]) -> None:
    if name.endswith(_MADE):
        stream = info.get("return_value")
        if hasattr(stream, "__dict__") and all(hasattr(stream, each) for each in _INSTEAD):
            _Connection(stream)


def watch_responses(response: httpx2.Response) -> None:
    """Before a response is read: have its body read past the client, where that can be."""
    connection = _Connection.of(response)
    if connection is not None and isinstance(response.stream, httpx2.SyncByteStream):
        timeouts = response.request.extensions.get("timeout", {})
        response.stream = _Body(connection, response.stream, connection.expect(response), timeouts)


def body(response: httpx2.Response) -> Generator[bytes, None, None]:
    """The body's bytes as they arrive; each read may block for ever, and lets others run.

    Past the layers that count them and put them together anew, unless they are compressed, although
    that was not asked for.

    Args:
        response: with its headers; to be closed by whoever has it, also after an error.

    Raises:
        httpx2.HTTPError: the upstream fails to send the rest.
    """
    if response.headers.get("Content-Encoding", "identity") != "identity" or not isinstance(
        response.stream, httpx2.SyncByteStream
    ):
        yield from response.iter_bytes()
        return
    timeouts = response.request.extensions.get("timeout")
    if isinstance(timeouts, dict):
        timeouts["read"] = None
    yield from response.stream


class _Body(httpx2.SyncByteStream):
    """A body by a way of its own where it is a usual one: chunked, or until the connection's end.

    The client itself reads all others, and whatever comes after the last chunk or is none.

    Args:
        connection: by which it comes.
        stream: the client's.
        chunks: takes its chunks apart, where it has some.
        timeouts: what the client is asked for.
    """

    def __init__(
        self,
        connection: _Connection,
        stream: httpx2.SyncByteStream,
        chunks: Dechunker | None,
        timeouts: Mapping[str, float | None],
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._chunks = chunks
        self._timeouts = timeouts

    def __iter__(self) -> Iterator[bytes]:
        connection, chunks = self._connection, self._chunks
        if chunks is not None or connection.until_end:
            with connection.reading(self._timeouts.get("read")) as read:
                piece = connection.kept or read()
                while piece:
                    data = piece if chunks is None else chunks.feed(piece)
                    if data:
                        yield data
                    if chunks is not None and chunks.stopped:
                        break
                    piece = read()
            # The client knows what to make of it, and whether the connection can be used again.
            connection.kept = b"" if chunks is None else chunks.rest()
        for piece in self._stream:
            yield piece
            _let_others_run()

    def close(self) -> None:
        """Close the response."""
        self._stream.close()


class _Connection:
    """Reads for an HTTP client, never past the end of a head or of a body.

    So a body can be read without the client, and what comes after a response is noticed: it would
    be taken for the answer to the next request, which may be somebody else's.

    Args:
        stream: the client's connection, which reads by this from here on.

    Attributes:
        at_body: the client has been given a head, and nothing after it.
        kept: what has been read and is still to be given.
    """

    def __init__(self, stream: Any) -> None:
        self.at_body = False
        self.kept = b""
        self._left: float | None = None
        self._in_heads = 0
        self._heads_until = 0.0
        self._socket = stream.get_extra_info("socket")
        self._receive: Callable[[int, float | None], bytes] = stream.read
        self._send: Callable[[bytes, float | None], None] = stream.write
        self._last = b""
        self._about: Callable[[str], Any] = stream.get_extra_info
        self._stream = stream
        # Of this object only, and with the promises of its class (httpcore2.NetworkStream).
        for name in _INSTEAD:
            setattr(stream, name, getattr(self, name))

    @classmethod
    def of(cls, response: httpx2.Response) -> _Connection | None:
        """That of a response, ``None`` where it has not been watched."""
        stream = response.extensions.get("network_stream")
        found = getattr(getattr(stream, "read", None), "__self__", None)
        return found if isinstance(found, cls) else None

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """See httpcore2.NetworkStream."""
        if self._left is None and timeout is not None:
            timeout = self._left_for_heads(timeout)
        data = self.kept or self._receive(min(max_bytes, _AT_ONCE), timeout)
        if self._left is None:
            found = _BLANK_LINE.search(self._last + data)
            self.at_body = found is not None
            end = len(data) if found is None else found.end() - len(self._last)
            self._last = b"" if self.at_body else (self._last + data)[-2:]
            self._in_heads += end
            if self._in_heads > _AT_ONCE:
                _let_others_run()
            if self._in_heads > _MOST_IN_HEADS:
                raise httpcore2.ReadError("there is no end to the heads before the response")
        else:
            self.at_body = False
            end = int(min(len(data), self._left))
            self._left = self._left - end or None
        data, self.kept = data[:end], data[end:]
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """See httpcore2.NetworkStream."""
        self._heads_until = 0.0  # those that follow are the answer to this
        self._send(buffer, timeout)

    def _left_for_heads(self, seconds: float) -> float:
        """So long all heads may take together: they may come a byte at a time."""
        now = time.monotonic()
        self._heads_until = self._heads_until or now + seconds
        if now > self._heads_until:
            raise httpcore2.ReadTimeout("the head before the response has not come in time")
        return min(seconds, self._heads_until - now)

    @property
    def until_end(self) -> bool:
        """Whether all that comes is the body."""
        return self._left == math.inf

    def expect(self, response: httpx2.Response) -> Dechunker | None:
        """Know how long the body of a response is, whose head the client has been given.

        Returns:
            what takes its chunks apart, where it has some and nothing of them has been given yet.
        """
        self._in_heads = 0
        if response.status_code in _WITHOUT_BODY or not self.at_body:
            return None
        coding = response.headers.get("Transfer-Encoding")
        if coding is not None:
            return Dechunker() if coding.lower() == "chunked" else None
        # The client has seen to it that where it is said several times it is always the same.
        length = response.headers.get("Content-Length", "").partition(",")[0].strip()
        # Without, it ends with the connection.
        self._left = (int(length) or None) if length else math.inf
        return None

    def start_tls(self, *arguments: Any, **named: Any) -> Any:
        """See httpcore2.NetworkStream."""
        self._let_go()
        try:
            return self._stream.start_tls(*arguments, **named)
        except BaseException:
            self._stream.close()
            raise

    def close(self) -> None:
        """See httpcore2.NetworkStream."""
        self._let_go()
        self._stream.close()

    def _let_go(self) -> None:
        # Or the two would hold each other until the garbage collector comes, which is rarely.
        for name in _INSTEAD:
            vars(self._stream).pop(name, None)

    def get_extra_info(self, info: str) -> Any:
        """See httpcore2.NetworkStream."""
        if info != "is_readable" or self._socket is None or self._socket.fileno() < 0:
            return self._about(info)
        # Asked of each idle connection before a request. gevent's own poll, which can block, lets
        # all others run first.
        poll = original("select", "poll")()
        poll.register(self._socket.fileno(), select.POLLIN)
        return bool(self.kept or poll.poll(0))

    @contextlib.contextmanager
    def reading(self, seconds: float | None) -> Iterator[Callable[[], bytes]]:
        """Give what reads the next bytes, or none at the end, and blocks for so long at most.

        Under gevent each read waits for the socket first. A token comes long after the one before,
        so that the read that gevent's socket tries at once is nearly always in vain; and who waits
        lets others run, also beside an upstream that never pauses.
        """
        if not self._can_wait():
            yield lambda: self._read(seconds)
            return
        from gevent import get_hub
        from gevent.socket import wait

        too_long = httpx2.ReadTimeout("nothing has come in time")
        # There may be but a part of a TLS record.
        self._socket.settimeout(seconds)
        receive = self._socket.recv
        # TLS takes one record at a time off the socket; its rest is no longer the socket's to tell.
        pending = getattr(self._socket, "pending", None)
        readable = get_hub().loop.io(self._socket.fileno(), _READ)

        def read() -> bytes:
            if pending is None or not pending():
                wait(readable, seconds, too_long)
            try:
                data: bytes = receive(_AT_ONCE)
            except TimeoutError:
                raise too_long from None
            except OSError as error:
                raise httpx2.ReadError(str(error)) from error
            return data

        try:
            yield read
        finally:
            readable.close()

    def _can_wait(self) -> bool:
        """Whether gevent's socket says when there is something to read."""
        if not cooperative():
            return False
        from gevent.socket import socket
        from gevent.ssl import SSLSocket

        # TLS in TLS, through a proxy that is spoken to over TLS, holds more back than the socket's.
        return type(self._socket) in (socket, SSLSocket) and not isinstance(
            self._about("ssl_object"), ssl.SSLObject
        )

    def _read(self, seconds: float | None) -> bytes:
        _let_others_run()
        try:
            return self._receive(_AT_ONCE, seconds)
        except httpcore2.ReadTimeout as error:
            raise httpx2.ReadTimeout(str(error)) from error
        except httpcore2.ReadError as error:
            raise httpx2.ReadError(str(error)) from error


def _let_others_run() -> None:
    """Under gevent a read of what is there already does not."""
    if cooperative():
        from sseflask.loop.time_slice import yield_to_loop

        yield_to_loop()
