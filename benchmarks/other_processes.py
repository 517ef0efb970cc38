"""How much of the server's core other processes took."""

from __future__ import annotations

import os
import time
from pathlib import Path

from benchmarks.server_process import Running


class OthersWatch:
    """Compares a core's busy time, from its making on, with the server's own."""

    def __init__(self, server: Running, core: int) -> None:
        self._server = server
        self._core = core
        self._before = (_busy(core), server.cpu(), time.monotonic())

    def share(self) -> float | None:
        """Give the share of the core that others used; None where the server is gone by now."""
        if self._server.exited:
            return None
        busy, own, moment = self._before
        others = (_busy(self._core) - busy) - (self._server.cpu() - own)
        return max(others, 0.0) / (time.monotonic() - moment)


def _busy(core: int) -> float:
    """Give a core's busy seconds since the start of the system, what a hypervisor took included."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *times = line.split()
        if name == f"cpu{core}":
            user, nice, system, _, _, irq, softirq, stolen = map(int, times[:8])
            return (user + nice + system + irq + softirq + stolen) / os.sysconf("SC_CLK_TCK")
    raise LookupError(f"no core {core} in /proc/stat")
