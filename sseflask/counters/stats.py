"""The statistics that `sseflask.SSE.stats` returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sseflask.counters.counts import KINDS, GapReason, Kind, Outcome, Reason
from sseflask.counters.snapshot import Snapshot, Worker

__all__ = ["Stats", "StreamStats", "WorkerStats", "stats_of"]


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
    runs_ended: Mapping[Outcome, int]
    workers: tuple[WorkerStats, ...]
    shared: bool


def stats_of(snapshot: Snapshot) -> Stats:
    """The public statistics of a snapshot."""
    counts = snapshot.counts
    return Stats(
        streams={kind: _streams(snapshot, kind) for kind in KINDS},
        published=counts.published,
        gaps=counts.gaps,
        runs_began=counts.runs_began,
        runs_ended=counts.runs_ended,
        workers=tuple(map(_worker, snapshot.workers)),
        shared=snapshot.shared,
    )


def _streams(snapshot: Snapshot, kind: Kind) -> StreamStats:
    counts = snapshot.counts.streams[kind]
    return StreamStats(
        open=snapshot.open(kind),
        opened=counts.opened,
        ended=counts.ended,
        refused=counts.refused,
        resumed=counts.resumed,
        events=counts.events,
        replayed=counts.replayed,
        bytes=counts.bytes,
    )


def _worker(worker: Worker) -> WorkerStats:
    gauges = worker.gauges
    return WorkerStats(
        pid=worker.pid,
        cpu=worker.usage.cpu,
        memory=worker.usage.memory,
        connections=gauges.connections,
        most_connections=gauges.most_connections,
        open={kind: gauges.open(kind) for kind in KINDS},
    )
