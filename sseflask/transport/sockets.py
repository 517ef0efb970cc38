"""What the transports ask of a client's socket beside reading and writing (Linux, tcp(7))."""

from __future__ import annotations

import _socket
import contextlib
import errno
import fcntl
import socket
import struct
import sys
import termios
from collections.abc import Iterator

__all__ = [
    "LINGER_SECONDS",
    "borrowed",
    "reset_when_closed",
    "send_last",
    "timed_out",
    "unacknowledged",
]

#: Seconds that an ended stream waits for the client's own close, so that no reset overtakes the
#: last bytes.
LINGER_SECONDS = 1.0


def unacknowledged(descriptor: int) -> int:
    """Bytes sent on a socket that its peer has not acknowledged (tcp(7), SIOCOUTQ); -1 where that
    can't be told."""
    answer = bytearray(4)
    try:
        fcntl.ioctl(descriptor, termios.TIOCOUTQ, answer)
    except OSError:
        return -1
    return int.from_bytes(answer, sys.byteorder)


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
