"""The counters and gauges of one process. Counters cost next to nothing on the path of an event.

Code counts by adding to an attribute. gevent never switches within an addition, and a counter of a
native thread belongs to that thread alone. Counters of several threads are changed under `LOCK`.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, NamedTuple, TypeVar, get_args

from sseflask.loop import native

Kind = Literal["stream", "channel", "run"]
"""The source of a stream's events: a generator, channels, a run."""

Reason = Literal[
    "done", "closed", "left", "drain", "lifetime", "slow", "expired", "failed", "resync"
]
"""Why a stream ended:

- ``done``: it was over;
- ``closed``: the application closed one of its channels;
- ``left``: the client went away;
- ``drain``: the server shuts down;
- ``lifetime``: its lifetime was over: the client resumes on a new connection;
- ``slow``: it was cut: the client took nothing for two heartbeats or fell too far behind;
- ``expired``: the token's time was over;
- ``failed``: its generator or another source raised an error;
- ``resync``: the store was replaced, or deleted events too early: the client has to resume.
"""

GapReason = Literal["trimmed", "epoch", "unknown"]
"""Why a client could not get the events that it missed; see the protocol."""

RunEnd = Literal["finished", "failed", "stopped", "cancelled", "interrupted"]
"""How a run ended; ``interrupted`` if its worker died before the end."""

Name = TypeVar("Name")

KINDS: tuple[Kind, ...] = get_args(Kind)
REASONS: tuple[Reason, ...] = get_args(Reason)
GAPS: tuple[GapReason, ...] = get_args(GapReason)
RUN_ENDS: tuple[RunEnd, ...] = get_args(RunEnd)


#: Held while a counter of several threads is changed.
LOCK = native.lock()


class StreamCounts:
    """The streams of one kind, since the process began; see `sseflask.StreamStats`."""

    __slots__ = ("bytes", "ended", "events", "opened", "refused", "replayed", "resumed")

    def __init__(self) -> None:
        self.opened = self.refused = self.resumed = 0
        self.events = self.replayed = self.bytes = 0
        self.ended: dict[Reason, int] = dict.fromkeys(REASONS, 0)

    @property
    def open(self) -> int:
        """How many are open now; meaningless for sums over processes, some of which are dead."""
        return self.opened - sum(self.ended.values())


class Histogram:
    """Durations, counted in buckets.

    Args:
        bounds: the upper bounds of the buckets, in seconds; one more bucket has no bound.

    Attributes:
        total: the sum of all durations, in microseconds.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0

    def add(self, seconds: float, times: int = 1) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += times
        self.total += int(seconds * 1_000_000) * times


#: The buckets of durations of milliseconds, and of those of up to a minute.
_SHORT = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_LONG = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0)


class Counts:
    """All counters. None of them ever falls.

    Attributes:
        published: events stored for channels, without the service's own.
        publish: how long a publish took until it was stored.
        delivery: how long an event took from the store's tail until it was written to the sockets
            of its detached subscribers; counted for each event that had any.
        first_token: how long an upstream took to its first frame.
    """

    def __init__(self) -> None:
        self.streams: dict[Kind, StreamCounts] = {kind: StreamCounts() for kind in KINDS}
        self.gaps: dict[GapReason, int] = dict.fromkeys(GAPS, 0)
        self.published = 0
        self.publish = Histogram(_SHORT)
        self.delivery = Histogram(_SHORT)
        self.runs_began = 0
        self.runs_ended: dict[RunEnd, int] = dict.fromkeys(RUN_ENDS, 0)
        self.first_token = Histogram(_LONG)

    def numbers(self) -> list[int]:
        """All numbers in a fixed order."""
        numbers = []
        for each in self.streams.values():
            numbers += [each.opened, each.refused, each.resumed]
            numbers += [each.events, each.replayed, each.bytes, *each.ended.values()]
        numbers += [*self.gaps.values(), self.published, self.runs_began]
        numbers += self.runs_ended.values()
        for histogram in (self.publish, self.delivery, self.first_token):
            numbers += [*histogram.counts, histogram.total]
        return numbers

    def set(self, numbers: Iterable[int]) -> None:
        """Set all numbers, in the order of `numbers`."""
        rest = iter(numbers)
        for each in self.streams.values():
            each.opened, each.refused, each.resumed = next(rest), next(rest), next(rest)
            each.events, each.replayed, each.bytes = next(rest), next(rest), next(rest)
            _set(each.ended, rest)
        _set(self.gaps, rest)
        self.published, self.runs_began = next(rest), next(rest)
        _set(self.runs_ended, rest)
        for histogram in (self.publish, self.delivery, self.first_token):
            histogram.counts = [next(rest) for _ in histogram.counts]
            histogram.total = next(rest)


def _set(numbers: dict[Name, int], rest: Iterator[int]) -> None:
    for name in numbers:
        numbers[name] = next(rest)


#: The counters of this process.
COUNTS = Counts()

# A child process begins at zero.
os.register_at_fork(after_in_child=lambda: COUNTS.set([0] * len(COUNTS.numbers())))


class Gauges(NamedTuple):
    """The gauges of one process, which are computed when they are read.

    Args:
        open_streams: open streams of generators.
        most_connections: the most that it accepts; 0 if that is not known.
        runs: runs that it writes.
        behind: events that have arrived from the store and are not delivered yet.
        loop_lag: how late its event loop was in the last second, in microseconds.
        figure_readers: subscribers of the figures' channel.
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
    figure_readers: int = 0
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


def current_gauges() -> Gauges:
    found = {name: sum(value() for value in values) for name, values in _providers.items()}
    opened = (COUNTS.streams[kind].open for kind in KINDS)
    return Gauges(*opened)._replace(**found)
