"""What holds of a process now: asked for when it is needed, so that nobody has to keep count."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from sseflask.counters.counts import COUNTS, KINDS, Kind

__all__ = ["Gauges", "now", "provide"]


class Gauges(NamedTuple):
    """Of one process.

    Args:
        open_streams: streams that are open and come from a generator.
        open_channels: those that come from channels.
        open_runs: those that come from runs.
        connections: connections that the worker has.
        most_connections: how many it may have; 0 if that is not known.
        runs: runs that it writes.
        behind: events that its channels' tail has brought and that were not passed on yet.
        loop_lag: how late its event loop was in the last second, in microseconds.
        watchers: those who read the channel of these figures.
        leaving: 1 if it has been told to stop.
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
        """Open streams of a kind."""
        return self[KINDS.index(kind)]


_providers: dict[str, list[Callable[[], int]]] = {}


def provide(name: str, value: Callable[[], int]) -> Callable[[], None]:
    """Have a gauge asked of a function that never blocks; several for one gauge are added up.

    Returns:
        what takes it back.
    """
    functions = _providers.setdefault(name, [])
    functions.append(value)

    def take_back() -> None:
        if value in functions:
            functions.remove(value)

    return take_back


def now() -> Gauges:
    """Those of this process."""
    found = {name: sum(value() for value in values) for name, values in _providers.items()}
    opened = (COUNTS.streams[kind].open for kind in KINDS)
    return Gauges(*opened)._replace(**found)
