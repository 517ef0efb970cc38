"""The figures of a server at one moment: all its workers' numbers, added up."""

from __future__ import annotations

import os
import resource
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sseflask.counters.counts import Counts, Kind
from sseflask.counters.gauges import Gauges
from sseflask.counters.sharing import sharing
from sseflask.counters.table import Slot

__all__ = ["Snapshot", "Usage", "Worker", "snapshot", "usage_of"]


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


class Worker(NamedTuple):
    """One living worker.

    Args:
        number: its place among the workers; another one takes it when this one is dead.
        pid: its process.
        seen: the monotonic time at which it last gave a sign of life.
        gauges: what holds of it.
        counts: what was counted at its place, by it and by the ones before.
        usage: what it takes of the machine.
    """

    number: int
    pid: int
    seen: float
    gauges: Gauges
    counts: Counts
    usage: Usage


class Snapshot(NamedTuple):
    """All workers of a server.

    Args:
        counts: what all have counted, dead ones too.
        workers: those that live.
        shared: whether the numbers of all workers are in it, and not only this process's.
    """

    counts: Counts
    workers: Sequence[Worker]
    shared: bool

    def open(self, kind: Kind) -> int:
        """Open streams of a kind."""
        return sum(worker.gauges.open(kind) for worker in self.workers)


def snapshot() -> Snapshot:
    """The figures of now. Blocks for a few reads of ``/proc``."""
    slots = sharing.read()
    sums = Counts()
    sums.set(map(sum, zip(*(slot.counters for slot in slots), strict=True)))
    workers = [_worker(slot) for slot in slots if slot.pid]
    return Snapshot(sums, workers, sharing.slot is not None)


def _worker(slot: Slot) -> Worker:
    counts = Counts()
    counts.set(slot.counters)
    gauges = Gauges(*slot.gauges)
    return Worker(slot.number, slot.pid, slot.seen, gauges, counts, usage_of(slot.pid))
