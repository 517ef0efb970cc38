"""What the kernel tells of a TCP connection's segments."""

from __future__ import annotations

import socket
import struct

#: Where Linux's ``struct tcp_info`` has ``tcpi_segs_in`` and ``tcpi_data_segs_in``.
_SEGMENTS, _WITH_DATA = 140, 152


def without_data(client: socket.socket) -> int:
    """How many of the segments that came had no data: a lone FIN and the peer's lone
    acknowledgements, of which there are none while it is sent nothing."""
    info = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    (every,) = struct.unpack_from("I", info, _SEGMENTS)
    (some,) = struct.unpack_from("I", info, _WITH_DATA)
    return int(every) - int(some)
