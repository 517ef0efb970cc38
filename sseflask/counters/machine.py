"""What a process takes of the machine, as its kernel tells anybody."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import NamedTuple

__all__ = ["Usage", "usage_of"]

_TICKS: int = os.sysconf("SC_CLK_TCK")
_PAGE: int = os.sysconf("SC_PAGE_SIZE")

#: Where the times are in /proc/<pid>/stat, counted behind the name (proc(5)).
_USER, _SYSTEM = 11, 12


class Usage(NamedTuple):
    """What a process takes.

    Args:
        cpu: seconds of processor time since it began.
        memory: bytes of memory that are in use (resident).
    """

    cpu: float = 0.0
    memory: int = 0


def usage_of(pid: int) -> Usage:
    """What a process takes; nothing if it has gone. Never blocks.

    Elsewhere than on Linux only of the calling process, and its memory at most.
    """
    directory = Path("/proc", str(pid))
    try:
        fields = (directory / "stat").read_text().rpartition(")")[2].split()
        pages = int((directory / "statm").read_text().split()[1])
    except (OSError, IndexError):
        return _own() if pid == os.getpid() else Usage()
    return Usage((int(fields[_USER]) + int(fields[_SYSTEM])) / _TICKS, pages * _PAGE)


def _own() -> Usage:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return Usage(used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)
