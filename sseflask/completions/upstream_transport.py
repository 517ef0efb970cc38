"""The transport of the official client: httpcore's pool, but bodies of streams are read without it.

httpcore and h11 make an event of every chunk, in steps that cost nearly half of a worker's time
when sixty streams are relayed. Here httpcore and h11 do everything else: connections and their
reuse, proxies, TLS, requests, heads, the end of a response, and bodies with a length.
"""

from __future__ import annotations

import contextlib
import math
import socket
import ssl
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, cast

import httpcore2
import httpx2

from sseflask.completions.chunked import Dechunker
from sseflask.completions.upstream_connection import Backend, UpstreamConnection, give_way
from sseflask.loop import native
from sseflask.loop.callbacks import call_later

#: Statuses of responses without a body, whatever their heads say (RFC 9112, section 6.3).
_NO_BODY = (204, 304)
_ERRORS = (
    httpcore2.TimeoutException,
    httpcore2.NetworkError,
    httpcore2.ProtocolError,
    httpcore2.ProxyError,
    httpcore2.UnsupportedProtocol,
)


class UpstreamTransport(httpx2.BaseTransport):
    """HTTP/1.1, with a connection for each request that runs. Thread-safe; for one process.

    Args:
        keepalive_seconds: for how long an idle connection may be used again.
    """

    def __init__(
        self,
        tls: ssl.SSLContext | None = None,
        proxy: httpx2.Proxy | None = None,
        keepalive_seconds: float | None = None,
    ) -> None:
        through: httpcore2.Proxy | None = None
        if proxy is not None:
            through = httpcore2.Proxy(
                url=_url(proxy.url), auth=proxy.raw_auth, ssl_context=proxy.ssl_context
            )
        self._pool = httpcore2.ConnectionPool(
            ssl_context=tls,
            proxy=through,
            # Every stream needs one: the number of streams is the server's to limit.
            max_connections=None,
            max_keepalive_connections=100,
            keepalive_expiry=keepalive_seconds,
            network_backend=Backend(),
        )

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        with _errors_of_httpx2():
            answer = self._pool.handle_request(
                httpcore2.Request(
                    request.method,
                    _url(request.url),
                    headers=request.headers.raw,
                    content=request.stream,
                    extensions=request.extensions,
                )
            )
        headers = httpx2.Headers(answer.headers)
        return httpx2.Response(
            answer.status,
            headers=headers,
            stream=_body(answer, headers, request.extensions.get("timeout", {})),
            extensions=answer.extensions,
        )

    def close(self) -> None:
        self._pool.close()


class _Body(httpx2.SyncByteStream):
    """The body of a response, of which some may be read before httpcore reads the rest."""

    def __init__(self, answer: httpcore2.Response, past_httpcore: Iterable[bytes] = ()) -> None:
        self._answer = answer
        self._past_httpcore = past_httpcore

    def __iter__(self) -> Iterator[bytes]:
        assert isinstance(self._answer.stream, Iterable)
        with _errors_of_httpx2():
            yield from self._past_httpcore
            for piece in self._answer.stream:
                yield piece
                give_way()

    def close(self) -> None:
        """Close the response; its connection is used again if the body has been read to its end."""
        with _errors_of_httpx2():
            self._answer.close()


def _body(
    answer: httpcore2.Response, headers: httpx2.Headers, timeouts: dict[str, float | None]
) -> _Body:
    connection = answer.extensions.get("network_stream")
    if answer.status in _NO_BODY or not isinstance(connection, UpstreamConnection):
        return _Body(answer)
    # h11 has checked that no other coding is named, and that all lengths are the same.
    if "Transfer-Encoding" in headers:
        return _Body(answer, connection.body(Dechunker(), timeouts))
    length = headers.get("Content-Length", "").partition(",")[0].strip()
    connection.body_left = int(length) if length else math.inf
    return _Body(answer, () if length else connection.body(None, timeouts))


def _url(url: httpx2.URL) -> httpcore2.URL:
    return httpcore2.URL(
        scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
    )


def raw_body(response: httpx2.Response) -> Generator[bytes, None, None]:
    """The body as it arrives, by reads that may block for ever; each lets other greenlets run.

    httpx neither counts nor buffers it, unless it is compressed although that was not asked for.
    The caller closes the response and the generator.
    """
    if response.headers.get("Content-Encoding", "identity") != "identity":
        return cast(Generator[bytes, None, None], response.iter_bytes())
    assert isinstance(response.stream, httpx2.SyncByteStream)
    response.request.extensions.get("timeout", {})["read"] = None
    return cast(Generator[bytes, None, None], iter(response.stream))


@contextlib.contextmanager
def _errors_of_httpx2() -> Generator[None]:
    """Raise httpcore's errors as httpx's errors of the same names."""
    try:
        yield
    except _ERRORS as error:
        raise getattr(httpx2, type(error).__name__)(str(error)) from error


class ReadDeadline:
    """While entered, it cuts a response's connection unless it is extended in time.

    The blocked read then ends as if the upstream had closed the connection. The client's own read
    timeout would cost a timer for every read; this is one timer, which looks back when it fires.
    Without a connection (the demo model's) nothing is cut.

    Attributes:
        paused: the clock stands still, because nothing reads.
        passed: the connection was cut.
    """

    def __init__(self, response: httpx2.Response, seconds: float) -> None:
        stream = response.extensions.get("network_stream")
        self._socket: Any = stream.get_extra_info("socket") if stream is not None else None
        self._seconds = seconds
        self._since = 0.0
        self._stop_timer: Callable[[], None] | None = None
        # A native lock also under gevent: nothing waits while it is held.
        self._lock: Any = native.lock()
        self.paused = self.passed = False

    def extend(self) -> None:
        """Give the upstream all its time from now on."""
        self._since = time.monotonic()
        self.paused = False

    def shorten(self, seconds: float) -> None:
        """Give the upstream no more than ``seconds`` from now on."""
        with self._lock:
            if seconds < self._seconds and self._stop_timer is not None:
                self._stop_timer()
                self._seconds = seconds
                self._since = time.monotonic()
                self._start_timer(seconds)

    def __enter__(self) -> ReadDeadline:
        self.extend()
        if self._socket is not None:
            self._start_timer(self._seconds)
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:  # the connection's next request is not cut
            stop, self._stop_timer = self._stop_timer, None
        if stop is not None:
            stop()

    def _start_timer(self, seconds: float) -> None:
        self._stop_timer = call_later(seconds, self._check)

    def _check(self) -> None:
        with self._lock:
            if self._stop_timer is None:
                return
            if self.paused:
                self._since = time.monotonic()
            left = self._since + self._seconds - time.monotonic()
            if left > 0:
                self._start_timer(left)
                return
            self.passed = True
            with contextlib.suppress(OSError):  # closed in the same moment
                # SSLSocket.shutdown() drops the TLS object while a read may be using it.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
