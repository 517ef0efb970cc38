"""The figures of a server at one moment: the sums of all workers."""

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

_TICKS: int = os.sysconf("SC_CLK_TCK")
_PAGE: int = os.sysconf("SC_PAGE_SIZE")

#: Where the times are in /proc/<pid>/stat, counted behind the name (proc(5)).
_USER, _SYSTEM = 11, 12


class Usage(NamedTuple):
    """The processor time of a process since it began, in seconds, and its resident bytes."""

    cpu: float = 0.0
    memory: int = 0


def usage_of(pid: int) -> Usage:
    """The usage of a process; nothing if it has gone. Never blocks.

    Without ``/proc`` it is known of the calling process only, and its memory is the highest.
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
        number: its slot; another worker gets it when this one is dead.
        pid: its process id.
        seen: the monotonic time of its last write.
        gauges: its gauges.
        counts: the counters of its slot, by it and the workers before.
        usage: its processor time and memory.
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
        counts: the sums of all, dead ones too.
        workers: those that live.
        shared: whether it has the numbers of all workers, and not only this process's.
    """

    counts: Counts
    workers: Sequence[Worker]
    shared: bool

    def open(self, kind: Kind) -> int:
        """Open streams of a kind."""
        return sum(worker.gauges.open(kind) for worker in self.workers)


def snapshot() -> Snapshot:
    """The current figures. Blocks for a few reads of ``/proc``."""
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
