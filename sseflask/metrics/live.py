"""The events of the page's chart: the workers' figures, each second, while somebody reads them."""

from __future__ import annotations

import json
import math
import os
import platform
import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from sseflask.channels.channels import Channels
from sseflask.channels.event_frames import encode_event
from sseflask.counters.counts import KINDS, Gauges
from sseflask.counters.sharing import sharing
from sseflask.counters.stats import Snapshot, Worker, snapshot
from sseflask.counters.table import Slot
from sseflask.store.api import StoreError
from sseflask.store.names import FIGURES, Pattern

#: Seconds from the moment at which all workers write their figures until these are read.
_DELAY = 0.25

#: Seconds without a write after which a worker counts as dead.
_SILENT = 3.0

#: Seconds between two questions whether a client of another machine reads the figures, and the most
#: that an answer takes.
_ASK_SECONDS, _ANSWER_SECONDS = 10.0, 2.0

#: Tells machines apart, and two services of one machine.
_MACHINE = f"{platform.node()[:40]}:{os.getppid()}"


class Moment(NamedTuple):
    """A snapshot, and its time by the monotonic clock (``at``) and by the wall clock."""

    at: float
    wall: float
    snapshot: Snapshot


class LiveFigures:
    """Publishes the figures of each second, in one worker, while a client of any reads them.

    Machines that share a server publish into the same channel, each its own figures.
    """

    def __init__(self, channels: Channels) -> None:
        self._channels = channels
        self._ask_at = self._read_until = -math.inf
        self._last: Moment | None = None
        self._publishing = False

    def begin(self) -> None:
        """Call `look` once a second in each process in which `sharing` has begun."""
        sharing.every_second.append(self.look)

    def look(self) -> None:
        """Publish the figures in another thread, if somebody reads them. Never blocks."""
        slots, now = sharing.read(), time.monotonic()
        known_unread = self._read_until <= now < self._ask_at
        if not _read_here(slots) and (known_unread or not self._asks(slots)):
            self._last = None
        elif not self._publishing:
            self._publishing = True
            # Under gevent a greenlet: the store may be slow.
            threading.Thread(target=self._publish, name="sseflask-live", daemon=True).start()

    def _publish(self) -> None:
        try:
            time.sleep(_DELAY)
            slots = sharing.read()
            if not _read_here(slots) and not (self._asks(slots) and self._read_elsewhere()):
                self._last = None
                return
            last, now = self._last, Moment(time.monotonic(), time.time(), snapshot())
            if last is not None and is_publisher(slots, sharing.slot):
                if not sharing.claim(int(now.wall)):
                    return  # another worker did; the next event is about a longer time
                machine = _MACHINE if self._channels.on_server else ""
                text = json.dumps(figures(last, now, machine), separators=(",", ":"))
                self._channels.publish(FIGURES, [encode_event(text, "figures")])
            self._last = now
        except StoreError:
            self._last = None  # the store has logged why
        finally:
            self._publishing = False

    def _asks(self, slots: Sequence[Slot]) -> bool:
        """Whether this worker is the one of its machine that asks the other machines."""
        return self._channels.on_server and is_publisher(slots, sharing.slot)

    def _read_elsewhere(self) -> bool:
        """Whether a client of another machine reads the figures, as far as was heard of late."""
        now = time.monotonic()
        if now >= self._ask_at:
            self._ask_at = now + _ASK_SECONDS
            if self._channels.store.count_subscriptions(Pattern.parse(FIGURES)):
                self._read_until = self._ask_at + _ANSWER_SECONDS
        return now < self._read_until


def _read_here(slots: Sequence[Slot]) -> bool:
    return any(slot.pid and Gauges(*slot.gauges).figure_readers for slot in slots)


def is_publisher(slots: Sequence[Slot], own: int | None) -> bool:
    """Whether the worker of a slot publishes: it is the first of the healthy ones."""
    since = time.monotonic() - _SILENT
    healthy = [
        slot.number
        for slot in slots
        if slot.pid and slot.seen > since and not Gauges(*slot.gauges).leaving
    ]
    return own is None or (bool(healthy) and min(healthy) == own)


def figures(last: Moment, now: Moment, machine: str = "") -> dict[str, Any]:
    """The data of an event: the work of each worker between two moments, by the second.

    ``machine`` names this machine if there may be others.
    """
    before = {worker.number: worker for worker in last.snapshot.workers}
    seconds = now.at - last.at
    return {
        **({"machine": machine} if machine else {}),
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
    return sum(getattr(each, name) for each in worker.counts.streams.values())
