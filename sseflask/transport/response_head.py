"""A stream's response head: gunicorn formats it, and the stream sends it with its first event."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sseflask.logs.once import warn_once
from sseflask.transport.gunicorn.response import KEY

if TYPE_CHECKING:
    from gunicorn.http.wsgi import Response

__all__ = ["ResponseHead", "describes_stream", "start_over", "take_head"]

_CLOSE = b"Connection: close\r\n"


class ResponseHead(NamedTuple):
    """The head of one response.

    Attributes:
        data: its bytes.
        chunked: whether the body is sent in chunks (RFC 9112, section 7.1).
        reusable: whether the client may send its next request on the same connection.
    """

    data: bytes
    chunked: bool
    reusable: bool


class _HeadBuffer:
    """Stands in for the socket while gunicorn writes the head."""

    def __init__(self) -> None:
        self.data = b""

    def sendall(self, data: bytes) -> None:
        self.data += data


def describes_stream(response: Response, status: str) -> bool:
    """Whether gunicorn has got the headers, and they are those of a body that is sent as it is.

    Middleware may hold them back, or change them to describe another body.
    """
    return (
        response.status is not None
        and response.status.split()[:1] == status.split()[:1]
        and response.response_length is None
        and "content-encoding" not in [name.lower() for name, _ in response.headers]
    )


def take_head(response: Response) -> ResponseHead:
    """Have gunicorn format the head, and send nothing of this response by itself any more."""
    keeps = bool(response.cfg.keepalive) and not response.req.should_close()
    if keeps:
        response.must_close = False  # gunicorn sets it when the worker is about to stop
    client, buffer = response.sock, _HeadBuffer()
    response.sock = buffer  # type: ignore[assignment]  # all that send_headers calls is there
    try:
        response.send_headers()
    finally:
        response.sock = client
    data = buffer.data
    if response.chunked and not keeps and not response.req.should_close():
        # With this header Node's fetch takes every end for a proper one, even in the middle of a
        # chunk (undici, client-h1.js: "treat all incomplete requests as complete"), so a client
        # would miss that a server died. The last chunk marks the end; a server may close the
        # connection after it (RFC 9112, section 9.5).
        data = data.replace(_CLOSE, b"", 1)
    response.write = _refuse_piece  # type: ignore[assignment,method-assign]  # the stream writes
    response.close = _do_nothing  # type: ignore[method-assign]  # the stream sends the last chunk
    response.force_close()  # unless the stream comes to a good end
    return ResponseHead(data, response.chunked, response.chunked and keeps)


def start_over(response: Response) -> None:
    """Nothing has been sent: let gunicorn send another response instead."""
    response.status = None
    response.headers = []
    response.response_length = None


def _refuse_piece(piece: bytes) -> None:
    if piece:
        warn_once(
            "A middleware adds to the body of an event stream, which is not sent. Middleware that "
            f'changes event streams has to set environ["{KEY}"] to None before.'
        )


def _do_nothing() -> None:
    pass
