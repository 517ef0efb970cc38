"""Connections to clients: what is waited for has a deadline, so that none is held for ever.

A request's head and body have to come, and a response has to be read, at a least rate. While a
connection waits for its client it may be closed in favour of others where the worker is full.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
from gunicorn.http.errors import NoMoreData
from gunicorn.util import write_error

from sseflask.logs import request_ids
from sseflask.loop.time_slice import yield_to_loop
from sseflask.transport.flusher import SLICE
from sseflask.transport.gunicorn.connection_limit import LAST_SECONDS, Places
from sseflask.transport.gunicorn.error_page import ErrorPage
from sseflask.transport.request_body import SlowBody
from sseflask.transport.sockets import borrowed, reset_when_closed

__all__ = ["BODY_SECONDS", "HEAD_SECONDS", "Visit"]

#: Seconds for a request's head from its first byte, or from the connection's begin.
HEAD_SECONDS = 10.0

#: Seconds that a client is waited for in all: to send a request's body, and to read a response.
#: So many bytes of either give a second back (as in Apache's mod_reqtimeout).
BODY_SECONDS, READ_SECONDS, BYTES_PER_SECOND = 10.0, 30.0, 500

_WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Visit:
    """One client's connection, for as long as it has a greenlet. The loop's thread only.

    Args:
        client: its socket.
        places: of the worker.
        keepalive: seconds for which it may be idle between two requests.

    Attributes:
        since: the monotonic time at which it began to wait for its client, for what it waits for.
        blocked: whether it is waiting right now.
        unread: bytes that were read before: gunicorn's parser gets them first.
        listener: what gunicorn was told that the connection came by.
    """

    __slots__ = (
        "_deadline",
        "_descriptor",
        "_idle",
        "_keepalive",
        "_last",
        "_long",
        "_patience",
        "_request",
        "_sending",
        "_taken",
        "_turn",
        "blocked",
        "client",
        "evicted",
        "listener",
        "places",
        "since",
        "unread",
    )

    def __init__(self, client: Any, places: Places, keepalive: float, unread: bytes = b"") -> None:
        self.client = client
        self._descriptor = client.fileno()  # TLS takes it from one object to another
        self.places = places
        self.unread = unread
        self.listener: Any = None
        self.since = time.monotonic()
        self.blocked = False
        self.evicted = False
        self._keepalive = keepalive
        self._deadline = self.since + HEAD_SECONDS
        self._idle = False
        self._taken = 0
        self._request: Any = None
        self._patience = 0.0
        self._last = False
        self._sending = False
        self._long = False
        self._turn = self.since + SLICE

    @property
    def silent(self) -> bool:
        """Whether a request is waited for of which nothing has come."""
        return self._request is None and not self._taken

    @property
    def has_news(self) -> bool:
        """Whether a request has come that this loop has not got to yet."""
        if not self.silent:
            return False
        with contextlib.suppress(OSError), borrowed(self._descriptor) as client:
            return bool(client.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        return False

    # -- what gunicorn does with it -------------------------------------------------------------

    def await_request(self, alive: bool) -> None:
        """From here on the next request's head is read."""
        if self._request is None:
            return  # the first: it has had its deadline from the start
        self._request = None
        now = time.monotonic()
        self._restart(now)
        self._idle = True
        self._deadline = now + (self._keepalive if alive else min(self._keepalive, LAST_SECONDS))

    def serve(self, request: Any) -> None:
        """From here on what is read is the body of this request."""
        self._restart(0.0)
        self._idle = False
        self._request = request
        self._patience = BODY_SECONDS
        self._last = self.places.full and not request.must_close
        if self._last:
            request.force_close()  # the response says so, and others need the place
        if time.monotonic() > self._turn:
            self._give_way()  # many requests may have come in one piece

    def served(self) -> None:
        """The request has been answered, or its stream goes on without this greenlet."""
        if self._long:
            self._long = False
            self.places.leave()
        self._sending = False

    def close(self) -> None:
        """The connection ends, or goes on without a greenlet."""
        self.served()
        self.places.waiting.pop(self, None)

    def begin_long(self) -> bool:
        """Whether there is a place for a request that may take long; it has it until `served`."""
        if not self._long:
            self._long = self.places.enter()
            if not self._long:
                self._request.force_close()  # others need the place
            elif self._last:
                self._request.must_close = False  # by its end it may be different
        return self._long

    def evict(self) -> None:
        """Have the connection closed in favour of others; it is waiting. Never blocks."""
        self.evicted = True
        # Where nothing is left to be said TLS must not say that it was cut off: clients take its
        # alert for a failure, and an end for an end.
        how = socket.SHUT_RDWR if self._sending or self.silent else socket.SHUT_RD
        with contextlib.suppress(OSError), borrowed(self._descriptor) as client:
            client.shutdown(how)

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """The client is waited for, in another way than by reading."""
        self.blocked = True
        self.places.wait(self)
        try:
            yield
        finally:
            self.blocked = False

    # -- reading --------------------------------------------------------------------------------

    def receive(self, recv: Callable[[int], bytes], size: int) -> bytes:
        """Read as the socket does, as long as what is read comes in time."""
        if self.unread:
            data, self.unread = self.unread[:size], self.unread[size:]
            self._taken += len(data)
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
        self._taken += len(data)
        return data

    def _wait_for(self, recv: Callable[[int], bytes], size: int) -> bytes:
        head = self._request is None
        seconds = self._deadline - time.monotonic() if head else self._patience
        try:
            data: bytes | None = self._blocked(recv, size, seconds)
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

    def _blocked(self, function: Callable[[Any], Any], argument: Any, seconds: float) -> Any:
        """What a function of the socket gives, or ``None`` where the client is given up."""
        began = time.monotonic()
        if not self.since:
            self.since = began
        self.client.timeout = max(0.001, seconds)
        self.blocked = True
        self.places.wait(self)
        try:
            given = function(argument)
        except OSError as error:
            # Under TLS it has no class of its own.
            late = isinstance(error, TimeoutError) or "timed out" in str(error)
            if not late and not self.evicted:
                raise
            return None
        finally:
            self.blocked = False
            now = time.monotonic()
            self._patience -= now - began
            self._turn = now + SLICE
        return None if self.evicted else given

    def _give_back(self, count: int, most: float) -> None:
        self._patience = min(most, self._patience + count / BYTES_PER_SECOND)

    def _too_slow(self) -> Exception:
        if self._request is not None:
            self._request.force_close()
            return SlowBody()
        if self._taken:
            self.client.timeout = 1.0
            with contextlib.suppress(OSError):
                page: Any = ErrorPage(self.client, request_ids.make())
                write_error(page, 408, "Request Timeout", "The request did not come in time.")
        return NoMoreData(b"")

    def _restart(self, since: float) -> None:
        self.places.waiting.pop(self, None)
        self.since = since
        self._taken = 0

    def _give_way(self) -> None:
        yield_to_loop()
        self._turn = time.monotonic() + SLICE

    # -- writing --------------------------------------------------------------------------------

    def wait_to_send(self, send: Callable[[Any], int], data: Any) -> int:
        """Send as a blocking socket does, as long as the client reads in time.

        Raises:
            OSError: it does not; the connection has been reset.
        """
        if not self._sending:
            self._sending = True
            self._restart(0.0)
            self._patience = READ_SECONDS
        try:
            sent: int | None = self._blocked(send, data, self._patience)
        finally:
            self.client.timeout = None
        if sent is None:
            with contextlib.suppress(OSError):  # it may have gone
                reset_when_closed(self.client)
            raise OSError(errno.EPIPE, "the client does not read its response")
        self._give_back(sent, READ_SECONDS)
        return sent
