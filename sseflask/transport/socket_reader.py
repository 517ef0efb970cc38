"""What a client sends while its stream runs: its next request, or nothing but its leaving."""

from __future__ import annotations

import os

from sseflask.transport import event_loop
from sseflask.transport.event_loop import Watcher
from sseflask.transport.stream_greenlet import StreamGreenlet

#: Bytes of the next request that are read while a stream runs, in order to see behind them that the
#: client leaves; then its socket is left alone, and leaving is noticed by writing.
_MOST_INPUT = 65536

#: Bytes of input that an ended stream still throws away while it waits for the client's own close.
_MOST_LINGER_INPUT = 1 << 20


class SocketReader:
    """Reads one stream's socket. Belongs to the loop's thread.

    Args:
        descriptor: the socket's.
        greenlet: the stream's.

    Attributes:
        data: what was read of the next request.
    """

    __slots__ = ("_descriptor", "_discards", "_greenlet", "_left", "_watcher", "data")

    def __init__(self, descriptor: int, greenlet: StreamGreenlet) -> None:
        self._descriptor = descriptor
        self._greenlet = greenlet
        self._watcher: Watcher = event_loop.watch(descriptor, event_loop.READ)
        self._left = _MOST_INPUT
        self._discards = False
        self.data = bytearray()

    def start(self) -> None:
        """Read what comes, and notice the client's leaving."""
        if not self._watcher.active:
            self._watcher.start(self._on_readable)

    def close(self) -> None:
        """Read no more."""
        self._watcher.close()

    def wait_for_request(self, seconds: float) -> bool:
        """Block until the client has sent something or has left; whether it has sent something."""
        if not self.data and not self._greenlet.client_left:
            self.start()
            self._greenlet.wait(seconds)
        return bool(self.data) and not self._greenlet.client_left

    def discard_until_closed(self, seconds: float) -> None:
        """Block until the client has closed its side, for some seconds at most."""
        self._discards = True
        self._left = _MOST_LINGER_INPUT
        self.start()
        self._greenlet.wait(seconds)

    def _on_readable(self) -> None:
        if self._greenlet.client_left:  # as writing has shown
            self._watcher.stop()
            return
        try:
            data = os.read(self._descriptor, 65536)
        except BlockingIOError:
            return
        except OSError as error:
            self._greenlet.note_error(error)
            data = b""
        if not data:
            self._watcher.stop()
            self._greenlet.half_closed = True
            self._greenlet.leave()
            return
        if not self._discards:
            self.data += data
            self._greenlet.wake()
        self._left -= len(data)
        if self._left < 0:
            self._watcher.stop()
