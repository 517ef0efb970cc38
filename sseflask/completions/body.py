"""The body of an upstream's stream, read from its socket past the layers that parse and count."""

from __future__ import annotations

import contextlib
import math
import re
import select
import ssl
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import Any

import httpcore2
import httpx2

from sseflask.channels.wake import original
from sseflask.completions.chunked import Dechunker
from sseflask.transport.handoff import cooperative

__all__ = ["body", "watch_connections", "watch_responses"]

_READ = 1  # libev's EV_READ

#: Bytes taken at once.
_AT_ONCE = 65_536

# Where h11, the client's parser, sees a head end.
_BLANK_LINE = re.compile(rb"\n\r?\n")
_INSTEAD = ("read", "start_tls", "get_extra_info", "close")
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
    """Before a response is read: have its connection know where its body ends."""
    connection = _Connection.of(response)
    if connection is not None:
        connection.expect(response)


def body(response: httpx2.Response) -> Generator[bytes, None, None]:
    """The body's bytes as they arrive; each read may block for ever, and lets others run.

    By a way of its own where it is a usual one (chunked, not compressed although that was not asked
    for, of a status that has one, by a connection that was watched); the client itself reads all
    others, and whatever comes after the last chunk or is none.

    Args:
        response: with its headers; to be closed by whoever has it, also after an error.

    Raises:
        httpx2.HTTPError: the upstream fails to send the rest.
    """
    stream = response.stream
    if response.headers.get("Content-Encoding", "identity") != "identity" or not isinstance(
        stream, httpx2.SyncByteStream
    ):
        return _in_turn(response.iter_bytes())
    timeouts = response.request.extensions.get("timeout")
    if isinstance(timeouts, dict):
        timeouts["read"] = None
    connection = _Connection.of(response)
    if (
        connection is None
        or not connection.at_body
        or response.status_code in _WITHOUT_BODY
        or response.headers.get("Transfer-Encoding", "").lower() != "chunked"
    ):
        return _in_turn(stream)
    return _chunked(connection, stream)


def _in_turn(pieces: Iterable[bytes]) -> Generator[bytes, None, None]:
    """Under gevent a read of what is there already lets nobody else run."""
    for piece in pieces:
        yield piece
        if cooperative():
            time.sleep(0)


def _chunked(connection: _Connection, stream: Iterable[bytes]) -> Generator[bytes, None, None]:
    chunks = Dechunker()
    with connection.reading() as read:
        piece = connection.kept or read()
        while piece:
            data = chunks.feed(piece)
            if data:
                yield data
            if chunks.stopped:
                break
            piece = read()
    # The client knows what to make of it, and whether the connection can be used again.
    connection.kept = chunks.rest
    yield from _in_turn(stream)


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
        self._socket = stream.get_extra_info("socket")
        self._receive: Callable[[int, float | None], bytes] = stream.read
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
        data = self.kept or self._receive(max_bytes, timeout)
        if self._left is None:
            found = _BLANK_LINE.search(self._last + data)
            self.at_body = found is not None
            end = len(data) if found is None else found.end() - len(self._last)
            self._last = b"" if self.at_body else (self._last + data)[-2:]
        else:
            self.at_body = False
            end = int(min(len(data), self._left))
            self._left = self._left - end or None
        data, self.kept = data[:end], data[end:]
        return data

    def expect(self, response: httpx2.Response) -> None:
        """Know how long the body of a response is, whose head the client has been given."""
        length = response.headers.get("Content-Length", "")
        if (
            not self.at_body
            or response.status_code in _WITHOUT_BODY
            or "Transfer-Encoding" in response.headers  # which ends with a blank line
        ):
            return
        if length.isascii() and length.isdigit():
            self._left = int(length) or None
        elif not length:
            self._left = math.inf  # it ends with the connection

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
    def reading(self) -> Iterator[Callable[[], bytes]]:
        """Give what reads the next bytes, or none at the end, and blocks for as long as it takes.

        Under gevent each read waits for the socket first. A token comes long after the one before,
        so that the read that gevent's socket tries at once is nearly always in vain; and who waits
        lets others run, also beside an upstream that never pauses.
        """
        if not self._can_wait():
            yield self._read
            return
        from gevent import get_hub
        from gevent.socket import wait

        # There may be but a part of a TLS record; how long the rest takes is not limited here.
        self._socket.settimeout(None)
        receive = self._socket.recv
        # TLS takes one record at a time off the socket; its rest is no longer the socket's to tell.
        pending = getattr(self._socket, "pending", None)
        readable = get_hub().loop.io(self._socket.fileno(), _READ)

        def read() -> bytes:
            if pending is None or not pending():
                wait(readable)
            try:
                data: bytes = receive(_AT_ONCE)
            except (OSError, ValueError) as error:  # the latter of TLS that has been closed
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

    def _read(self) -> bytes:
        if cooperative():
            time.sleep(0)
        try:
            return self._receive(_AT_ONCE, None)
        except httpcore2.ReadError as error:
            raise httpx2.ReadError(str(error)) from error
