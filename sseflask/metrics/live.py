"""The channel of the page's chart: what the workers do, each second, while somebody reads it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from sseflask.channels.channels import Channels
from sseflask.channels.event_frames import stored
from sseflask.counters.counts import KINDS
from sseflask.counters.gauges import Gauges
from sseflask.counters.sharing import sharing
from sseflask.counters.snapshot import Snapshot, Worker, snapshot
from sseflask.store.api import StoreError
from sseflask.store.names import FIGURES

__all__ = ["LiveFigures", "Moment", "figures", "speaks"]

#: Seconds after the workers have written their figures of a second, until these are read.
_BEHIND = 0.25

#: Seconds without a sign of life, after which a worker is not waited for.
_SILENT = 3.0


class Moment(NamedTuple):
    """A snapshot, and when it was taken: by the monotonic clock, and by the one on the wall."""

    at: float
    wall: float
    snapshot: Snapshot


class LiveFigures:
    """Publishes the figures of a second, on one of the workers, while anybody on any reads them.

    Args:
        channels: those of the service.
    """

    def __init__(self, channels: Channels) -> None:
        self._channels = channels
        self._last: Moment | None = None
        self._telling = False

    def begin(self) -> None:
        """Look once a second from now on, in the processes in which `sharing` has begun."""
        sharing.every_second.append(self.look)

    def look(self) -> None:
        """Begin to tell the figures, if somebody reads them. Never blocks."""
        if not any(slot.pid and Gauges(*slot.gauges).watchers for slot in sharing.read()):
            self._last = None
        elif not self._telling:
            self._telling = True
            # Under gevent a greenlet: the log may be long in taking it.
            threading.Thread(target=self._tell, name="sseflask-live", daemon=True).start()

    def _tell(self) -> None:
        try:
            time.sleep(_BEHIND)
            last, now = self._last, Moment(time.monotonic(), time.time(), snapshot())
            if last is not None and speaks(now, sharing.slot):
                if not sharing.claim(int(now.wall)):
                    return  # this second has been told; the next event is about a longer time
                text = json.dumps(figures(last, now), separators=(",", ":"))
                self._channels.publish(FIGURES, [stored(text, "figures")])
            self._last = now
        except StoreError:
            self._last = None  # the log's thread has said why
        finally:
            self._telling = False


def speaks(now: Moment, slot: int | None) -> bool:
    """Whether the worker of a slot is to publish: the first of those that are well."""
    well = [each.number for each in now.snapshot.workers if _is_well(each, now.at)]
    return slot is None or (bool(well) and min(well) == slot)


def _is_well(worker: Worker, now: float) -> bool:
    return not worker.gauges.leaving and now - worker.seen < _SILENT


def figures(last: Moment, now: Moment) -> dict[str, Any]:
    """What is published: what each worker has done between two moments, by the second."""
    before = {worker.number: worker for worker in last.snapshot.workers}
    seconds = now.at - last.at
    return {
        "at": round(now.wall, 3),
        "published": now.snapshot.counts.published - last.snapshot.counts.published,
        "workers": [
            _figures(before.get(worker.number), worker, seconds) for worker in now.snapshot.workers
        ],
    }


def _figures(before: Worker | None, worker: Worker, seconds: float) -> dict[str, Any]:
    cpu, events, sent = worker.usage.cpu, 0, 0
    if before is not None:
        events = _sum(worker, "events") - _sum(before, "events")
        sent = _sum(worker, "bytes") - _sum(before, "bytes")
        if before.pid == worker.pid:
            cpu -= before.usage.cpu
    return {
        "pid": worker.pid,
        "cpu": round(cpu / seconds, 3),
        "memory": worker.usage.memory,
        "streams": {kind: worker.gauges.open(kind) for kind in KINDS},
        "events": round(events / seconds, 1),
        "bytes": round(sent / seconds, 1),
    }


def _sum(worker: Worker, name: str) -> int:
    counted: Sequence[int] = [getattr(each, name) for each in worker.counts.streams.values()]
    return sum(counted)
