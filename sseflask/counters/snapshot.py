"""The figures of a server at one moment: all its workers' numbers, added up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sseflask.counters.counts import Counts, Kind
from sseflask.counters.gauges import Gauges
from sseflask.counters.machine import Usage, usage_of
from sseflask.counters.sharing import sharing
from sseflask.counters.table import Slot

__all__ = ["Snapshot", "Worker", "snapshot"]


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
