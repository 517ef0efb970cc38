"""What a client sends: the rest of its request before a stream, the next request during it."""

from __future__ import annotations

import io
import os
import time
from dataclasses import InitVar, dataclass, field
from typing import TYPE_CHECKING

import gevent
import gevent.socket
from werkzeug.exceptions import RequestTimeout

from sseflask.transport import event_loop
from sseflask.transport.event_loop import Watcher
from sseflask.transport.failures import body_too_slow
from sseflask.transport.stream import EarlyError
from sseflask.transport.stream_greenlet import StreamGreenlet

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from sseflask.transport.gunicorn.server_response import ServerResponse


#: At most this many bytes and seconds.
_BYTES, _SECONDS, _PIECE = 1 << 20, 5.0, 65536


class SlowBody(RequestTimeout):
    """408, and the connection's end (RFC 9110, section 15.5.9). Flask's error handlers see it."""

    description = "The request's body did not arrive in time; please send it again."


def read_request_body(environ: WSGIEnvironment, server: ServerResponse) -> bool:
    """Read what is left of the request, so that it is not mistaken for the client's leaving.

    The generator may still want it, so it is put back for gunicorn to read. The rest of a long or a
    slow body stays on the socket, for the generator. Blocks.

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


#: Bytes of the next request that are read while a stream runs: behind them it is seen that the
#: client leaves. Beyond this the socket is not read, and leaving is noticed by writing.
_MOST_INPUT = 65536

#: Bytes that are still thrown away after the end, while the client is to close its own side.
_MOST_DISCARDED = 1 << 20


@dataclass(slots=True, eq=False)
class SocketReader:
    """Reads one stream's socket. `data` is what was read of the next request."""

    client: InitVar[gevent.socket.socket]
    descriptor: int
    greenlet: StreamGreenlet
    data: bytes = b""
    _watcher: Watcher = field(init=False)
    _left: int = _MOST_INPUT
    _discards: bool = False

    def __post_init__(self, client: gevent.socket.socket) -> None:
        self._watcher = event_loop.read_watcher(client)

    def start(self) -> None:
        if not self._watcher.active:
            self._watcher.start(self)

    def close(self) -> None:
        self._watcher.stop()

    def wait_for_request(self, seconds: float) -> bool:
        """Block until the client has sent something or has left. Returns whether it has sent."""
        if not self.data and not self.greenlet.client_left:
            self.start()
            self.greenlet.wait(seconds)
        return bool(self.data) and not self.greenlet.client_left

    def discard_until_closed(self, seconds: float) -> None:
        """Block until the client has closed its side, for some seconds at most."""
        self._discards = True
        self._left = _MOST_DISCARDED
        self.start()
        self.greenlet.wait(seconds)

    def __call__(self) -> None:
        """The socket can be read. The watcher has no bound method, which each stream would keep."""
        if self.greenlet.client_left:  # as writing has shown
            self._watcher.stop()
            return
        error = None
        try:
            data = os.read(self.descriptor, 65536)
        except BlockingIOError:
            return
        except OSError as raised:
            data, error = b"", raised
        self._left -= len(data)
        if not data or self._left < 0:
            self._watcher.stop()
        if not data:
            self.greenlet.half_closed = True
            self.greenlet.client_gone(error)
        elif not self._discards:
            self.data += data
            self.greenlet.wake()
