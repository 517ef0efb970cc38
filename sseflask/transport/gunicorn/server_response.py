"""gunicorn's response, request and error pages. No other module changes their attributes.

gunicorn has no public interface for a response that is written to the socket by the application.
`tests/unit/transport/gunicorn/test_server_response.py` compares what is used here of
`gunicorn.http.wsgi.Response` and `gunicorn.http.message.Request` with gunicorn's own code, on the
lowest and the newest version. A response of any other class is left alone: the stream then passes
through the server piece by piece.

Imported by gunicorn's arbiter: only the standard library may be imported here, and modules that
import nothing else.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import lru_cache
from io import BytesIO
from types import FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple

from sseflask.logs import request_ids
from sseflask.logs.once import warn_once

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from sseflask.transport.detached.group import DetachedStream


#: The key of the environment. A middleware may change the body of event streams without a sign of
#: it in the headers. It must set the key to ``None``: then all pieces pass through it.
KEY = "sseflask.server_response"

#: What gunicorn sends as it is: a status, a header's name, and values, each in a line, that it does
#: not strip.
_STATUS = re.compile(r"[2-5][0-9]{2} [ -~]*")
_NAME = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
_VALUES = re.compile(r"(?:(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?\n)*")

#: Headers that it changes or leaves out: the connection, the date and the length are its concern.
_CHANGED = frozenset(
    (
        *("connection", "keep-alive", "te", "trailers", "transfer-encoding", "upgrade"),
        *("proxy-authenticate", "proxy-authorization", "server", "date", "content-length"),
        "content-encoding",  # another body, see `describes_stream`
    )
)

Adopt = Callable[["DetachedStream", float, "ServerResponse", "WSGIEnvironment"], None]
"""A worker's way to go on with a stream without a greenlet: the stream, the monotonic time at which
it has to end, and the request that it answers."""


class Head(NamedTuple):
    """Status line and headers, and whether the client may send its next request afterwards."""

    data: bytes
    chunked: bool
    reusable: bool


@dataclass(slots=True, eq=False)
class ServerResponse:
    """gunicorn's response to one request. Used by the request's greenlet; never blocks.

    Attributes:
        response: gunicorn's own, or what `start_response` belongs to instead.
        adopt: the worker's; ``None`` if it has no streams without a greenlet.
        adopted: the worker has taken the stream over, and its greenlet is no longer needed.
        returned: the application has returned. It calls the response only when its body is read,
            and gunicorn logs the request at its end.
    """

    response: Any
    adopt: Adopt | None = None
    adopted: bool = field(init=False, default=False)
    returned: bool = field(init=False, default=False)

    @property
    def is_http1(self) -> bool:
        """Whether the response is gunicorn's own for HTTP/1: others write in ways of their own."""
        wsgi = sys.modules.get("gunicorn.http.wsgi")
        return wsgi is not None and type(self.response) is wsgi.Response

    # -- the head ------------------------------------------------------------------------------

    def start_plain(
        self, status: str, headers: list[tuple[str, str]], start_response: StartResponse
    ) -> bool:
        """Do what ``start_response`` does with a plain head of a stream, in a step.

        Returns whether it has been done: not if the function is a middleware's, or if gunicorn
        would send another head than this one. `describes_stream` holds afterwards.
        """
        response = self.response
        if start_response != response.start_response or response.status is not None:
            return False
        values = "".join([f"{value}\n" for _, value in headers])
        if (
            _STATUS.fullmatch(status) is None
            or _VALUES.fullmatch(values) is None
            or values.count("\n") != len(headers)
            or not _are_plain(tuple([name for name, _ in headers]))
        ):
            return False
        response.status, response.status_code = status, int(status[:3])
        response.headers = headers
        is_http = getattr(response.cfg, "protocol", "http") != "uwsgi"
        response.chunked = is_http and response.req.version > (1, 0)
        return True

    @property
    def chunked(self) -> bool:
        """Whether the body is sent in chunks; known once the response has been started."""
        return bool(self.response.chunked)

    def describes_stream(self, status: str) -> bool:
        """Whether ``start_response`` has come to gunicorn, for a body that is sent as it is.

        Middleware may hold the call back, or change status and headers to fit another body.
        """
        response = self.response
        return (
            response.status is not None
            and response.status.split()[:1] == status.split()[:1]
            and response.response_length is None
            and "content-encoding" not in [name.lower() for name, _ in response.headers]
        )

    def take_over(self, environ: WSGIEnvironment) -> Head:
        """Give the head, to be sent by the caller as everything after it: gunicorn sends nothing.

        gunicorn will close the connection after the response, unless `keep_open` is called.
        """
        if "wsgi.early_hints" in environ:
            environ["wsgi.early_hints"] = _too_late
        response = self.response
        client_closes = response.req.should_close()
        keeps = bool(response.cfg.keepalive) and not client_closes
        if keeps:
            response.must_close = False  # gunicorn sets it when the worker is about to end
        chunked: bool = response.chunked
        # With "Connection: close" Node's fetch takes every end for a proper one, even in the middle
        # of a chunk (undici, client-h1.js: "treat all incomplete requests as complete"). A client
        # would miss that a server died. The last chunk marks the end, and a server may close the
        # connection after it without that header (RFC 9112, section 9.5).
        says_close = keeps or client_closes or not chunked
        head = Head(format_head(response, says_close=says_close), chunked, chunked and keeps)
        response.headers_sent = True
        response.write = _drop
        response.close = _do_nothing
        response.force_close()
        return head

    def reset(self) -> None:
        """Let the application send another response; nothing of this one has been sent."""
        response = self.response
        response.status = None
        response.headers = []
        response.response_length = None

    def share_headers(self) -> None:
        """The head has been made: keep headers that other responses have too only once."""
        self.response.headers = _shared(tuple(self.response.headers))

    # -- the connection ----------------------------------------------------------------------------

    def close_afterwards(self) -> None:
        self.response.force_close()

    def keep_open(self) -> None:
        self.response.must_close = False

    @property
    def has_proxy_line(self) -> bool:
        """Whether connections begin with a line of the PROXY protocol, which gunicorn remembers."""
        return self.response.cfg.proxy_protocol not in (False, "off")

    def count_sent(self, size: int) -> None:
        """Tell gunicorn's access log how many bytes of the body were sent."""
        self.response.sent = size

    # -- the request -------------------------------------------------------------------------------

    @property
    def request_body(self) -> Any:
        return self.response.req.body

    def set_unread_body(self, body: BytesIO) -> None:
        """Replace what has been read of the request's body, but not by the application."""
        self.response.req.body.buf = body

    @property
    def next_request(self) -> bytes:
        """What gunicorn's parser has read behind the request."""
        data: bytes = self.response.req.unreader.buf.getvalue()
        return data

    def append_to_next_request(self, data: bytes) -> None:
        """Let gunicorn's parser read this after what it has."""
        buffer = self.response.req.unreader.buf
        buffer.seek(0, os.SEEK_END)
        buffer.write(data)


def format_head(response: Any, *, says_close: bool = True) -> bytes:
    """Format a response's head, byte for byte as gunicorn does after ``start_response``."""
    request = response.req
    lines = [
        f"HTTP/{request.version[0]}.{request.version[1]} {response.status}",
        f"Server: {response.version}",
        f"Date: {_date(int(time.time()))}",
    ]
    if response.upgrade:
        lines.append("Connection: upgrade")
    elif not response.should_close():
        lines.append("Connection: keep-alive")
    elif says_close:
        lines.append("Connection: close")
    if response.chunked:
        lines.append("Transfer-Encoding: chunked")
    lines += [f"{name}: {value}" for name, value in response.headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)


@lru_cache(maxsize=64)
def _are_plain(names: tuple[str, ...]) -> bool:
    return all(map(_NAME.fullmatch, names)) and _CHANGED.isdisjoint(map(str.lower, names))


@lru_cache(maxsize=16)
def _shared(headers: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    return headers


def _do_nothing() -> None:
    pass


def _too_late(hints: object) -> None:
    """What gunicorn's function for early hints does from here on; that keeps a third of a KiB."""


def _drop(piece: bytes) -> None:
    """Take what middleware gives gunicorn to send after a stream: it would be no part of it."""
    if piece:
        warn_once(
            "A middleware adds to the body of an event stream, which is not sent. Middleware that "
            f'changes event streams has to set environ["{KEY}"] to None before.'
        )


def hand_over_responses(application: Any, adopt: Adopt | None = None) -> Any:
    """The WSGI application as a gunicorn worker is to call it: streams find gunicorn's response.

    It is put into the environment below all middleware, which may wrap ``start_response``.

    Raises:
        StopIteration: by the wrapped application, after the worker has adopted a stream: gunicorn's
            `handle` then closes its socket, which has no descriptor any more, and logs nothing.
    """
    if isinstance(type(application).__call__, FunctionType):
        # As Flask's. Python calls a method without C's stack, which is kept for every stream.
        application = application.__call__

    def wsgi(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        server = ServerResponse(getattr(start_response, "__self__", None), adopt)
        environ[KEY] = server
        request_ids.enter(environ)
        body: Iterable[bytes] = application(environ, start_response)
        server.returned = True
        if server.adopted:
            # What middleware does at a response's end is done with the request: no greenlet is
            # left to do it later. Some does it when it has read the body, which is empty.
            try:
                for _ in body:
                    pass
            finally:
                if hasattr(body, "close"):
                    body.close()
            raise StopIteration
        return body

    return wsgi


class ErrorPageSocket:
    """A client's socket for one of gunicorn's own error pages, to which it adds our headers.

    gunicorn writes them to the socket past the application, in one `sendall`
    (`gunicorn.util.write_error`, also called by its `Worker.handle_error`). If it wrote them
    otherwise, the headers would be missing:
    `tests/unit/transport/gunicorn/test_server_response_error_page.py`.
    """

    def __init__(self, client: Any, id: str) -> None:
        self._client = client
        self._id = id

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def sendall(self, page: bytes) -> None:
        line, end, rest = page.partition(b"\r\n")
        added = f"{request_ids.HEADER}: {self._id}\r\nCache-Control: no-store\r\n"
        self._client.sendall(line + end + added.encode() + rest)
