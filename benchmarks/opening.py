"""Streams of the route `open`: opened as fast as the server takes them, then silent and open."""

from __future__ import annotations

import math

from benchmarks.client.load import Load, Stream
from benchmarks.client.order import OrderCheck
from benchmarks.running import Running

_WAITING_AT_MOST = 64


def open_all(server: Running, load: Load, streams: int, patience: float) -> bool:
    """Open so many streams, no more than 64 waiting for their first event; give whether all came.

    Gives up when none of those that wait has had its event for `patience` seconds.
    """
    request = server.request("open")
    waiting: list[Stream] = []
    left = streams

    def came() -> bool:
        nonlocal left
        waiting[:] = [stream for stream in waiting if not (stream.check.events or stream.ended_at)]
        added = [
            Stream(request, OrderCheck(1))
            for _ in range(min(_WAITING_AT_MOST - len(waiting), left))
        ]
        load.add(added, math.inf)
        waiting.extend(added)
        left -= len(added)
        return not waiting

    while waiting or left:
        before = load.events()
        if not load.run(came, patience) and load.events() == before:
            return False
    return True


def faults(load: Load) -> list[str]:
    """Say what is wrong with streams that should have had one event and be open."""
    found = []
    total = len(load.streams)
    for stream in load.streams:
        found += [kind for kind, _ in stream.faults() if kind != "stalled"]
        if not stream.check.complete:
            found.append("no event")
        elif stream.ended_at and not stream.cut:
            found.append("ended")
    return [f"{kind}: {found.count(kind)} of {total} streams" for kind in dict.fromkeys(found)]
