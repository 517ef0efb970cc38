"""The gauges of a process: computed when they are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from sseflask.counters.counts import COUNTS, KINDS, Kind


class Gauges(NamedTuple):
    """The gauges of one process.

    Args:
        open_streams: open streams of generators.
        most_connections: the most that it accepts; 0 if that is not known.
        runs: runs that it writes.
        behind: events that have arrived from the store and are not delivered yet.
        loop_lag: how late its event loop was in the last second, in microseconds.
        watchers: subscribers of the figures' channel.
        leaving: 1 if it is shutting down.
    """

    open_streams: int = 0
    open_channels: int = 0
    open_runs: int = 0
    connections: int = 0
    most_connections: int = 0
    runs: int = 0
    behind: int = 0
    loop_lag: int = 0
    watchers: int = 0
    leaving: int = 0

    def open(self, kind: Kind) -> int:
        return self[KINDS.index(kind)]


_providers: dict[str, list[Callable[[], int]]] = {}


def provide(name: str, value: Callable[[], int]) -> Callable[[], None]:
    """Add a function that gives a part of a gauge and never blocks; return one that removes it."""
    functions = _providers.setdefault(name, [])
    functions.append(value)

    def remove() -> None:
        if value in functions:
            functions.remove(value)

    return remove


def now() -> Gauges:
    """The gauges of this process."""
    found = {name: sum(value() for value in values) for name, values in _providers.items()}
    opened = (COUNTS.streams[kind].open for kind in KINDS)
    return Gauges(*opened)._replace(**found)
