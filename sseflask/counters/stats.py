"""The figures of a server at one moment, and the statistics that `sseflask.SSE.stats` returns."""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sseflask.counters.counts import (
    KINDS,
    Counts,
    GapReason,
    Gauges,
    Kind,
    Reason,
    RunEnd,
    StreamCounts,
)
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
        seen: the monotonic time of its last write.
        counts: of its slot: also those of the workers before.
    """

    number: int
    pid: int
    seen: float
    gauges: Gauges
    counts: Counts
    usage: Usage


class Snapshot(NamedTuple):
    """The sums of all workers of a server, dead ones too, and those that live.

    It is ``shared`` if it has the numbers of all workers, and not only this process's.
    """

    counts: Counts
    workers: Sequence[Worker]
    shared: bool

    def open(self, kind: Kind) -> int:
        return sum(worker.gauges.open(kind) for worker in self.workers)


def snapshot() -> Snapshot:
    """The current figures. Blocks for a few reads of ``/proc``."""
    slots = sharing.read()
    sums = Counts()
    sums.set(map(sum, zip(*(slot.counters for slot in slots), strict=True)))
    workers = [_worker_of(slot) for slot in slots if slot.pid]
    return Snapshot(sums, workers, sharing.slot is not None)


def _worker_of(slot: Slot) -> Worker:
    counts = Counts()
    counts.set(slot.counters)
    gauges = Gauges(*slot.gauges)
    return Worker(slot.number, slot.pid, slot.seen, gauges, counts, usage_of(slot.pid))


@dataclass(frozen=True, slots=True)
class StreamStats:
    """The streams of one kind. All but ``open`` counts from the server's start.

    Args:
        open: streams that are open now.
        opened: streams whose response has begun.
        ended: streams that have ended, by reason: ``done``, ``closed`` (by the application),
            ``left`` (the client went away), ``drain`` (at a shutdown), ``lifetime``, ``slow``
            (cut), ``expired`` (its token), ``failed``, ``resync`` (the store was replaced).
        refused: streams for which there was no room.
        resumed: streams whose client presented the id of an event.
        events: events written to clients' sockets.
        replayed: events among them that were stored before the client came.
        bytes: bytes of bodies written to clients' sockets.
    """

    open: int
    opened: int
    ended: Mapping[Reason, int]
    refused: int
    resumed: int
    events: int
    replayed: int
    bytes: int


@dataclass(frozen=True, slots=True)
class WorkerStats:
    """One living worker process.

    Args:
        pid: its process id.
        cpu: its processor time in seconds.
        memory: its resident bytes.
        connections: its connections; 0 if that is not known.
        most_connections: gunicorn's ``worker_connections``; 0 if that is not known.
        open: open streams by kind.
    """

    pid: int
    cpu: float
    memory: int
    connections: int
    most_connections: int
    open: Mapping[Kind, int]


@dataclass(frozen=True, slots=True)
class Stats:
    """The figures of a server at one moment.

    Args:
        streams: by kind: ``stream`` for a generator's, ``channel``, ``run``.
        published: events stored for channels.
        gaps: gaps that clients were sent, by reason.
        runs_began: runs that were begun.
        runs_ended: runs that have ended, by outcome.
        workers: the living ones.
        shared: whether it includes all workers of the server, the others as of a second ago at
            most; otherwise only this process.
    """

    streams: Mapping[Kind, StreamStats]
    published: int
    gaps: Mapping[GapReason, int]
    runs_began: int
    runs_ended: Mapping[RunEnd, int]
    workers: tuple[WorkerStats, ...]
    shared: bool


def stats_of(snapshot: Snapshot) -> Stats:
    counts = snapshot.counts
    streams = {}
    for kind, each in counts.streams.items():
        fields = {name: getattr(each, name) for name in StreamCounts.__slots__}
        streams[kind] = StreamStats(open=snapshot.open(kind), **fields)
    return Stats(
        streams=streams,
        published=counts.published,
        gaps=counts.gaps,
        runs_began=counts.runs_began,
        runs_ended=counts.runs_ended,
        workers=tuple(map(_stats_of, snapshot.workers)),
        shared=snapshot.shared,
    )


def _stats_of(worker: Worker) -> WorkerStats:
    gauges = worker.gauges
    return WorkerStats(
        pid=worker.pid,
        cpu=worker.usage.cpu,
        memory=worker.usage.memory,
        connections=gauges.connections,
        most_connections=gauges.most_connections,
        open={kind: gauges.open(kind) for kind in KINDS},
    )
