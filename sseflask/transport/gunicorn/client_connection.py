"""One client's connection, with deadlines for requests and for ordinary responses.

A request's head and body have to come, and a response has to be read, at a minimum rate. While a
connection waits for its client, it may be closed to make room for others. Streams have deadlines of
their own, see `timing`.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gevent
from gunicorn.http.errors import NoMoreData
from gunicorn.util import write_error

from sseflask.logs import request_ids
from sseflask.loop.callbacks import yield_to_loop
from sseflask.transport.flusher import SLICE_SECONDS
from sseflask.transport.gunicorn.connection_pool import LAST_SECONDS, ConnectionLimit
from sseflask.transport.gunicorn.server_response import ErrorPageSocket
from sseflask.transport.socket_reader import SlowBody
from sseflask.transport.sockets import borrowed, reset_when_closed

#: Seconds for a request's head from its first byte, or from the connection's beginning.
HEAD_SECONDS = 10.0

#: Seconds in which a client must send a request's body, and read a response; and how many bytes of
#: either give it one second more (as in Apache's mod_reqtimeout).
BODY_SECONDS, READ_SECONDS, BYTES_PER_SECOND = 10.0, 30.0, 500

_WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


@dataclass(slots=True, eq=False)
class ClientConnection:
    """A client's connection, while it has a greenlet. The loop's thread only.

    Attributes:
        keepalive: seconds for which it may be idle between two requests.
        unread: bytes that were read before: gunicorn's parser gets them first.
        listener: what gunicorn was given as the listener that accepted the connection.
        since: the monotonic time at which its present wait for the client began.
        blocked: whether it waits for its client right now.
        evicted: whether it has been closed to make room.
    """

    client: Any
    limit: ConnectionLimit
    keepalive: float
    unread: bytes = b""
    listener: object = None
    since: float = field(init=False, default_factory=time.monotonic)
    blocked: bool = field(init=False, default=False)
    evicted: bool = field(init=False, default=False)
    _descriptor: int = field(init=False)
    _deadline: float = field(init=False)
    _turn: float = field(init=False)
    _idle: bool = field(init=False, default=False)
    _received: int = field(init=False, default=0)
    _request: Any = field(init=False, default=None)
    _seconds_left: float = field(init=False, default=0.0)
    _is_last: bool = field(init=False, default=False)
    _is_long: bool = field(init=False, default=False)
    _sending: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self._descriptor = self.client.fileno()  # TLS takes it from one object to another
        self._deadline = self.since + HEAD_SECONDS
        self._turn = self.since + SLICE_SECONDS

    @property
    def silent(self) -> bool:
        """Whether it waits for a request of which nothing has been read."""
        return self._request is None and not self._received

    @property
    def evictable(self) -> bool:
        """Whether it waits for its client, and nothing has come that is still to be read."""
        if not self.blocked or self.evicted:
            return False
        if self.silent:  # the request may be there already
            with contextlib.suppress(OSError), borrowed(self._descriptor) as client:
                return not client.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        return True

    # -- its requests ----------------------------------------------------------------------------

    def await_request(self, alive: bool) -> None:
        """From here on the next request's head is read, not for long if the worker is ending."""
        if self._request is None:
            return  # the first: it has had its deadline from the start
        self._request = None
        now = time.monotonic()
        self._restart(now)
        self._idle = True
        self._deadline = now + (self.keepalive if alive else min(self.keepalive, LAST_SECONDS))

    def begin_request(self, request: Any) -> None:
        """From here on what is read is the body of this request."""
        self._restart(0.0)
        self._idle = False
        self._request = request
        self._seconds_left = BODY_SECONDS
        self._is_last = self.limit.full and not request.must_close
        if self._is_last:
            request.force_close()  # the response says so, and others need the connection
        if time.monotonic() > self._turn:
            self._give_way()  # many requests may have come in one piece

    def end_request(self) -> None:
        """The request has been answered, or its stream goes on without this greenlet."""
        if self._is_long:
            self._is_long = False
            self.limit.end_long()
        self._sending = False

    def close(self) -> None:
        """The connection ends, or goes on without a greenlet."""
        self.end_request()
        self.limit.waiting.pop(self, None)

    def begin_long(self) -> bool:
        """Whether the request may take long; it then counts as long until it ends."""
        if not self._is_long:
            self._is_long = self.limit.begin_long()
            if not self._is_long:
                self._request.force_close()  # others need the connection
            elif self._is_last:
                self._request.must_close = False  # by its end there may be room again
        return self._is_long

    def evict(self) -> None:
        """Close the connection, which is waiting, to make room. Never blocks."""
        self.evicted = True
        # If nothing is left to be said, TLS must not say that it was cut off: clients take its
        # alert for a failure, and an end for an end.
        how = socket.SHUT_RDWR if self._sending or self.silent else socket.SHUT_RD
        with contextlib.suppress(OSError), borrowed(self._descriptor) as client:
            client.shutdown(how)

    # -- reading --------------------------------------------------------------------------------

    def receive(self, recv: Callable[[int], bytes], size: int) -> bytes:
        """Read as a blocking socket does, as long as the client sends in time.

        Raises:
            NoMoreData: gunicorn's, for an end between two requests: the head did not come in time,
                or the connection was evicted.
            SlowBody: the body did not come in time.
        """
        if self.unread:
            data, self.unread = self.unread[:size], self.unread[size:]
            self._received += len(data)
            return data
        client = self.client
        client.timeout = 0.0
        try:
            data = recv(size)
        except _WOULD_BLOCK:
            data = self._wait_for(recv, size)
        else:
            if time.monotonic() > self._turn:
                client.timeout = None
                self._give_way()
        finally:
            client.timeout = None
        if data and self._idle:
            self._idle = False
            self._deadline = time.monotonic() + HEAD_SECONDS
        self._received += len(data)
        return data

    def _wait_for(self, recv: Callable[[int], bytes], size: int) -> bytes:
        head = self._request is None
        seconds = self._deadline - time.monotonic() if head else self._seconds_left
        try:
            data: bytes | None = self._block(recv, size, seconds)
        except gevent.GreenletExit:
            if not head:
                raise
            # The worker is ending. There is no request that gunicorn could answer with its 500.
            raise NoMoreData(b"") from None
        if data is None:
            raise self._too_slow()
        if not head:
            self._give_back(len(data), BODY_SECONDS)
        return data

    def _block(self, function: Callable[[Any], Any], argument: Any, seconds: float) -> Any:
        """What a function of the socket gives, or ``None`` if it takes longer, or is evicted."""
        began = time.monotonic()
        if not self.since:
            self.since = began
        self.client.timeout = max(0.001, seconds)
        self.blocked = True
        self.limit.wait(self)
        try:
            result = function(argument)
        except OSError as error:
            # Under TLS it has no class of its own.
            late = isinstance(error, TimeoutError) or "timed out" in str(error)
            if not late and not self.evicted:
                raise
            return None
        finally:
            self.blocked = False
            now = time.monotonic()
            self._seconds_left -= now - began
            self._turn = now + SLICE_SECONDS
        return None if self.evicted else result

    def _give_back(self, count: int, most: float) -> None:
        self._seconds_left = min(most, self._seconds_left + count / BYTES_PER_SECOND)

    def _too_slow(self) -> Exception:
        if self._request is not None:
            self._request.force_close()
            return SlowBody()
        if self._received:
            self.client.timeout = 1.0
            page: Any = ErrorPageSocket(self.client, request_ids.make())
            with contextlib.suppress(OSError):
                write_error(page, 408, "Request Timeout", "The request did not come in time.")
        return NoMoreData(b"")

    def _restart(self, since: float) -> None:
        self.limit.waiting.pop(self, None)
        self.since = since
        self._received = 0

    def _give_way(self) -> None:
        yield_to_loop()
        self._turn = time.monotonic() + SLICE_SECONDS

    # -- writing --------------------------------------------------------------------------------

    def send_in_time(self, send: Callable[[Any], int], data: Any) -> int:
        """Send as a blocking socket does, as long as the client reads in time.

        Raises:
            OSError: it does not; the connection has been reset.
        """
        if not self._sending:
            self._sending = True
            self._restart(0.0)
            self._seconds_left = READ_SECONDS
        try:
            sent: int | None = self._block(send, data, self._seconds_left)
        finally:
            self.client.timeout = None
        if sent is None:
            with contextlib.suppress(OSError):  # it may have gone
                reset_when_closed(self.client)
            raise OSError(errno.EPIPE, "the client does not read its response")
        self._give_back(sent, READ_SECONDS)
        return sent
