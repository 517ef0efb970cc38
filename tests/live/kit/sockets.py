"""Which process has a connection's socket, according to the kernel.

/proc/net/tcp, which is what psutil reads, takes the kernel ten milliseconds however few sockets
there are, and tests ask hundreds of times. sock_diag(7) looks one connection up.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
from collections.abc import Iterable
from pathlib import Path

import psutil

_SOCK_DIAG = 4  # NETLINK_SOCK_DIAG
_BY_FAMILY = 20  # SOCK_DIAG_BY_FAMILY
_REQUEST = 1  # NLM_F_REQUEST
_HEADER = struct.Struct("=IHHII")
#: What is asked before both ends (family, protocol, states) and after them (interface, cookie).
_ASKED = struct.pack("=BBxxI", socket.AF_INET, socket.IPPROTO_TCP, 0xFFFFFFFF)
_ANY = struct.pack("=3I", 0, 0xFFFFFFFF, 0xFFFFFFFF)
#: Ports and addresses of both ends; only the first four bytes of each address are those of IPv4.
_ENDS = struct.Struct("!HH4s12x4s12x")
#: Where the answer has the inode: after a header, the state, the ends, and four numbers.
_INODE = _HEADER.size + 4 + _ENDS.size + len(_ANY) + 4 * 4
_LINK = re.compile(r"socket:\[(\d+)\]")


def inode(port: int, other_port: int) -> int:
    """The inode of the socket with this port of 127.0.0.1, and of its other end.

    Without such a connection, and as long as nobody has accepted it, it is 0. Of the socket that
    listens on the port, the other end is 0.
    """
    loopback = socket.inet_aton("127.0.0.1")
    asked = _ASKED + _ENDS.pack(port, other_port, loopback, loopback) + _ANY
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as kernel:
        kernel.settimeout(5)
        kernel.send(_HEADER.pack(_HEADER.size + len(asked), _BY_FAMILY, _REQUEST, 0, 0) + asked)
        answer = kernel.recv(4096)
    _, kind, *_ = _HEADER.unpack_from(answer)
    # If there is no such connection, the kernel tells of the socket that listens.
    if kind != _BY_FAMILY or _ENDS.unpack_from(answer, _HEADER.size + 4)[1] != other_port:
        return 0
    (number,) = struct.unpack_from("=I", answer, _INODE)
    return int(number)


def owned(process: psutil.Process) -> set[int]:
    """The inodes of all sockets that a process has open; none if it has ended."""
    found = set()
    with contextlib.suppress(OSError):
        for file in Path(f"/proc/{process.pid}/fd").iterdir():
            with contextlib.suppress(OSError):  # closed since
                if link := _LINK.match(str(file.readlink())):
                    found.add(int(link[1]))
    return found


def owners(processes: Iterable[psutil.Process], number: int) -> list[psutil.Process]:
    """Those of the processes that have the socket with this inode open."""
    return [each for each in processes if number and number in owned(each)]
