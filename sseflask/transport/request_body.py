"""Reads what is left of a request before its response takes over the socket."""

from __future__ import annotations

import io
import time
from typing import TYPE_CHECKING

import gevent
from werkzeug.exceptions import RequestTimeout

from sseflask.transport.body import EarlyError
from sseflask.transport.failures import body_too_slow

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from sseflask.transport.gunicorn.response import ServerResponse


#: At most this many bytes and seconds.
_BYTES, _SECONDS, _PIECE = 1 << 20, 5.0, 65536


class SlowBody(RequestTimeout):
    """408, and the connection's end (RFC 9110, section 15.5.9). Flask's error handlers see it."""

    description = "The request's body did not arrive in time; please send it again."


def read_request_body(environ: WSGIEnvironment, server: ServerResponse) -> bool:
    """Read what is left of the request, so that it is not mistaken for the client's leaving.

    The generator may still want it, so it is put back for gunicorn to read. The rest of a long or a
    slow body stays on the socket, for the generator. Blocks.

    Args:
        environ: the request's.
        server: gunicorn's response to it.

    Returns:
        whether all of it is here.

    Raises:
        EarlyError: a chunked body did not arrive in time; gunicorn can't go on reading it.
    """
    if "CONTENT_LENGTH" not in environ and "HTTP_TRANSFER_ENCODING" not in environ:
        return True  # RFC 9112, section 6.3: no body, as in most requests for a stream
    source, read = server.request_body, io.BytesIO()
    deadline = time.monotonic() + _SECONDS
    complete = False
    try:
        while not complete and read.tell() < _BYTES:
            with gevent.Timeout(max(0.001, deadline - time.monotonic())):
                complete = not read.write(source.read(_PIECE))
    except SlowBody as error:
        raise EarlyError(error) from error
    except gevent.Timeout:
        if "CONTENT_LENGTH" not in environ:
            raise EarlyError(body_too_slow()) from None
    read.write(source.buf.getvalue())
    server.set_unread_body(read)
    return complete
