"""Streams opened as fast as the server takes them, which then stay open."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.client.load import Load, Stream
from benchmarks.client.order import OrderCheck
from benchmarks.server_process import Running

_WAITING_AT_MOST = 64


@dataclass(frozen=True)
class Kind:
    """A kind of stream: which route, with what in its path, and how many events it begins with."""

    route: str
    events: int
    channel: str = ""

    def make(self, server: Running) -> Callable[[], Stream]:
        """Give what makes such streams; NoRoute where the server has none of them."""
        request = server.request(self.route, channel=self.channel)
        return lambda: Stream(request, OrderCheck(self.events))


ONE_EVENT = Kind("open", 1)
SUBSCRIPTION = Kind("subscribe", 0, "silence")


def open_all(
    load: Load,
    make: Callable[[], Stream],
    streams: int,
    patience: float,
    waiting_at_most: int = _WAITING_AT_MOST,
) -> bool:
    """Open so many streams, only some of them waiting at a time; give whether all have begun.

    A stream has begun with its response's headers and the events that are expected of it. Gives up
    when none of those that wait has begun for `patience` seconds.
    """
    waiting: list[Stream] = []
    left = streams

    def came() -> bool:
        nonlocal left
        waiting[:] = [stream for stream in waiting if not _has_begun(stream)]
        added = [make() for _ in range(min(waiting_at_most - len(waiting), left))]
        load.add(added, math.inf)
        waiting.extend(added)
        left -= len(added)
        return not waiting

    while waiting or left:
        before = left + len(waiting)
        if not load.run(came, patience) and left + len(waiting) == before:
            return False
    return True


def _has_begun(stream: Stream) -> bool:
    return bool(stream.ended_at or (stream.response.status and stream.check.complete))


def faults(load: Load, lacking: str = "no event") -> list[str]:
    """Say what is wrong with streams that should be open and have had all expected events."""
    found = []
    total = len(load.streams)
    for stream in load.streams:
        found += [kind for kind, _ in stream.faults() if kind != "stalled"]
        if not stream.check.complete:
            found.append(lacking)
        elif stream.ended_at and not stream.cut:
            found.append("ended")
        elif not (stream.response.status or stream.cut):
            found.append("no response")
    return [f"{kind}: {found.count(kind)} of {total} streams" for kind in dict.fromkeys(found)]
