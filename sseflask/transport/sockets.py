"""What the transports ask of a client's socket beside reading and writing (Linux, tcp(7))."""

from __future__ import annotations

import _socket
import contextlib
import errno
import fcntl
import math
import socket
import struct
import sys
import termios
from collections.abc import Iterator

#: Seconds that an ended stream waits for the client's own close, so that no reset overtakes the
#: last bytes.
LINGER_SECONDS = 1.0

#: The largest value of TCP_USER_TIMEOUT, a C int.
_MOST_MILLISECONDS = 2**31 - 1


def unacknowledged(descriptor: int) -> int:
    """Bytes sent on a socket that its peer has not acknowledged (tcp(7), SIOCOUTQ); -1 if that is
    not known."""
    answer = bytearray(4)
    try:
        fcntl.ioctl(descriptor, termios.TIOCOUTQ, answer)
    except OSError:
        return -1
    return int.from_bytes(answer, sys.byteorder)


def send_last(descriptor: int, data: bytes | memoryview) -> int:
    """Send the last bytes before a half-close, so that they leave in one packet with the FIN.

    A client that keeps connections for its next request must not take this one for open when it has
    read the end of the response. Never blocks.
    """
    with borrowed(descriptor) as client:
        return client.send(data, socket.MSG_MORE | socket.MSG_DONTWAIT)  # send(2)


def timed_out(descriptor: int) -> bool:
    """Whether the system has ended the connection, as its peer acknowledged nothing; asked once."""
    with borrowed(descriptor) as client:
        return client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ETIMEDOUT


def reset_when_closed(client: _socket.socket) -> None:
    """Reset a slow client's connection at its close: that frees what the kernel holds for it."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def set_user_timeout(client: _socket.socket, seconds: float) -> None:
    """Let the system end a TCP connection whose peer acknowledges nothing for some seconds (RFC
    5482); 0 for the system's own time. Nothing happens to a socket that is not TCP's."""
    milliseconds = min(math.ceil(seconds * 1000), _MOST_MILLISECONDS)
    try:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise


@contextlib.contextmanager
def borrowed(descriptor: int) -> Iterator[_socket.socket]:
    """A socket object for a descriptor, which stays open."""
    client = _socket.socket(fileno=descriptor)
    try:
        yield client
    finally:
        client.detach()
