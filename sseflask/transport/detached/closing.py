"""Sockets that are done with: when their descriptors may be closed, and how."""

from __future__ import annotations

import _socket
import contextlib
import errno
import math
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator

__all__ = [
    "LINGER_SECONDS",
    "Closing",
    "borrowed",
    "reset_when_closed",
    "send_last",
    "timed_out",
]

#: Seconds that an ended stream waits for the client's own close, so that no reset overtakes the
#: last bytes.
LINGER_SECONDS = 1.0


class Closing:
    """Closes descriptors, each when it is safe. The loop's thread only; never blocks.

    Args:
        on_close: called for each descriptor that has been closed.
    """

    def __init__(self, on_close: Callable[[], object]) -> None:
        self._on_close = on_close
        self._lingering: dict[int, float] = {}
        self._kept = False
        self._doomed: list[int] = []

    def __len__(self) -> int:
        """How many are not closed yet."""
        return len(self._lingering) + len(self._doomed)

    @contextlib.contextmanager
    def descriptors_kept(self) -> Iterator[None]:
        """Close none meanwhile: its number could be somebody else's while it is written to."""
        self._kept = True
        try:
            yield
        finally:
            self._kept = False
            doomed, self._doomed = self._doomed, []
            for descriptor in doomed:
                self.close(descriptor)

    def close(self, descriptor: int) -> None:
        """Close a descriptor, as soon as none has to be kept."""
        if self._kept:
            self._doomed.append(descriptor)
            return
        with contextlib.suppress(OSError):
            os.close(descriptor)
        self._on_close()

    def reset(self, descriptor: int) -> None:
        """Give up on a client that takes nothing."""
        with contextlib.suppress(OSError), borrowed(descriptor) as client:
            reset_when_closed(client)
        self.close(descriptor)

    def half_close(self, descriptor: int) -> None:
        """All is sent: close our side, and give the client a little time to close its own."""
        try:
            with borrowed(descriptor) as client:
                client.shutdown(socket.SHUT_WR)
        except OSError:  # the client was faster
            self.close(descriptor)
        else:
            self._lingering[descriptor] = time.monotonic() + LINGER_SECONDS

    def client_closed(self, descriptor: int) -> None:
        """The client has closed its side of one that was half closed, or of none of those."""
        if self._lingering.pop(descriptor, None) is not None:
            self.close(descriptor)

    def close_overdue(self, now: float) -> None:
        """Close those whose clients have had their time."""
        for descriptor, due in list(self._lingering.items()):
            if now < due:
                return  # they are in the order of their ends
            self.client_closed(descriptor)

    def next(self) -> float:
        """The monotonic time at which `close_overdue` is to be called; infinite for never."""
        return next(iter(self._lingering.values()), math.inf)


def send_last(descriptor: int, data: bytes | memoryview) -> int:
    """Send what a half-close follows at once, so that the two leave together (send(2), MSG_MORE).

    A client that keeps connections for its next request must not take this one for open when it has
    read the end of the response. Never blocks.

    Returns:
        how many bytes the socket took.

    Raises:
        OSError: as of ``send``.
    """
    with borrowed(descriptor) as client:
        return client.send(data, socket.MSG_MORE | socket.MSG_DONTWAIT)


def timed_out(descriptor: int) -> bool:
    """Whether the system has ended the connection, as its peer acknowledged nothing; told once."""
    with borrowed(descriptor) as client:
        return client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ETIMEDOUT


def reset_when_closed(client: _socket.socket) -> None:
    """Have a client that takes nothing be reset: that frees what the kernel holds for it.

    Raises:
        OSError: as of ``setsockopt``.
    """
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@contextlib.contextmanager
def borrowed(descriptor: int) -> Iterator[_socket.socket]:
    """A socket object for a descriptor, which stays open."""
    client = _socket.socket(fileno=descriptor)
    try:
        yield client
    finally:
        client.detach()
