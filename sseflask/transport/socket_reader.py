"""What a client sends while its stream runs: its next request, or nothing until it leaves."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from sseflask.transport import event_loop
from sseflask.transport.event_loop import Watcher
from sseflask.transport.stream_greenlet import StreamGreenlet

#: Bytes of the next request that are read while a stream runs, in order to see behind them that the
#: client leaves; then its socket is left alone, and leaving is noticed by writing.
_MOST_INPUT = 65536

#: Bytes that are still thrown away after the end, while the client is to close its own side.
_MOST_DISCARDED = 1 << 20


@dataclass(slots=True, eq=False)
class SocketReader:
    """Reads one stream's socket. Belongs to the loop's thread.

    Args:
        descriptor: the socket's.
        greenlet: the stream's.

    Attributes:
        data: what was read of the next request.
    """

    descriptor: int
    greenlet: StreamGreenlet
    data: bytearray = field(default_factory=bytearray)
    _watcher: Watcher = field(init=False)
    _left: int = _MOST_INPUT
    _discards: bool = False

    def __post_init__(self) -> None:
        self._watcher = event_loop.watch(self.descriptor, event_loop.READ)

    def start(self) -> None:
        """Read what comes, and notice the client's leaving."""
        if not self._watcher.active:
            self._watcher.start(self._on_readable)

    def close(self) -> None:
        """Read no more."""
        self._watcher.close()

    def wait_for_request(self, seconds: float) -> bool:
        """Block until the client has sent something or has left; whether it has sent something."""
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

    def _on_readable(self) -> None:
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
            self.greenlet.leave(error)
        elif not self._discards:
            self.data += data
            self.greenlet.wake()
