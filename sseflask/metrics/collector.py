"""The figures as Prometheus' metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from flask import Flask
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from sseflask.channels.channels import Channels
from sseflask.counters.counts import KINDS, Counts, Histogram
from sseflask.counters.stats import Snapshot, Worker, snapshot
from sseflask.extension import channels_of, runs_of
from sseflask.runs.runs import Runs
from sseflask.store.api import Extent, StoreError

#: Values with their labels.
_Samples = Iterable[tuple[Sequence[str], float]]


class FiguresCollector(Collector):
    """Collects the current figures of all workers of the server, and of an application's stores.

    No label has a value that a client chooses. Counters go on when a worker dies.
    """

    def __init__(self, app: Flask) -> None:
        self._app = app

    def describe(self) -> Iterable[Metric]:
        """Nothing, so that a registry does not collect all figures for their names."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The figures. Blocks for half a second at most, for each store."""
        now = snapshot()
        yield from _streams(now)
        yield from _channels(now.counts)
        yield from _runs(now)
        yield from _workers(now.workers)
        yield from self._stores()

    def _stores(self) -> Iterator[Metric]:
        kept: dict[str, Channels | Runs] = {"channels": channels_of(self._app)}
        runs = runs_of(self._app)
        if runs.in_use:
            kept["runs"] = runs
        available: list[tuple[list[str], int]] = []
        found: list[tuple[list[str], Extent]] = []
        for name, each in kept.items():
            try:
                found.append(([name], each.store.extent()))
                available.append(([name], 1))
            except StoreError:
                available.append(([name], 0))
        read_only = [([name], int(kept[name].store.problem() is not None)) for ([name], _) in found]
        sizes = [(labels, extent.bytes) for labels, extent in found]
        ages = [(labels, extent.oldest) for labels, extent in found]
        meaning = "Whether a store could be read (1) or not (0)."
        yield _gauge("log_available", meaning, available, "log")
        meaning = "Whether a Redis server can be read and stores nothing (1)."
        yield _gauge("log_read_only", meaning, read_only, "log")
        yield _gauge("log_bytes", "The bytes in a store.", sizes, "log")
        yield _gauge("log_oldest_seconds", "The age of the oldest content of a store.", ages, "log")


#: Counters of each kind of stream: name, meaning, attribute, kinds. Only channels and runs have a
#: store from which events are replayed.
_OF_STREAMS = (
    ("streams_opened", "Streams whose response has begun.", "opened", KINDS),
    ("streams_refused", "Streams for which there was no room.", "refused", KINDS),
    ("replays", "Streams whose client resumed after an id.", "resumed", ("channel", "run")),
    ("events_delivered", "Events written to clients' sockets.", "events", KINDS),
    ("events_replayed", "Of these, those that were stored before.", "replayed", ("channel", "run")),
    ("bytes_delivered", "Bytes of bodies written to clients' sockets.", "bytes", KINDS),
)


def _streams(now: Snapshot) -> Iterator[Metric]:
    counts = now.counts.streams
    open_now = [([kind], now.open(kind)) for kind in KINDS]
    yield _gauge("streams_open", "Streams that are open.", open_now, "kind")
    ended = [
        ([kind, reason], count) for kind in KINDS for reason, count in counts[kind].ended.items()
    ]
    yield _counter("streams_ended", "Streams that have ended.", ended, "kind", "reason")
    for name, meaning, attribute, kinds in _OF_STREAMS:
        samples = [([kind], getattr(counts[kind], attribute)) for kind in KINDS if kind in kinds]
        yield _counter(name, meaning, samples, "kind")


def _channels(counts: Counts) -> Iterator[Metric]:
    gaps = [([reason], count) for reason, count in counts.gaps.items()]
    yield _counter("gaps", "Gaps that clients were sent.", gaps, "reason")
    yield _counter("events_published", "Events stored.", [([], counts.published)])
    yield _histogram("publish_seconds", "From a publish until it is stored.", counts.publish)
    yield _histogram(
        "delivery_seconds",
        "From an event's arrival in a worker until it is written to the worker's subscribers.",
        counts.delivery,
    )


def _runs(now: Snapshot) -> Iterator[Metric]:
    counts, running = now.counts, sum(worker.gauges.runs for worker in now.workers)
    yield _gauge("runs_running", "Runs that go on.", [([], running)])
    yield _counter("runs_began", "Runs that were begun.", [([], counts.runs_began)])
    ended = [([outcome], count) for outcome, count in counts.runs_ended.items()]
    yield _counter("runs_ended", "Runs that have ended.", ended, "outcome")
    meaning = "From a run's begin to its first frame."
    yield _histogram("first_token_seconds", meaning, counts.first_token)


#: Gauges of each worker: name, meaning, value.
_OF_WORKERS: Mapping[str, tuple[str, Callable[[Worker], float]]] = {
    "worker_memory_bytes": ("Memory in use (resident).", lambda it: it.usage.memory),
    "worker_connections": ("Connections.", lambda it: it.gauges.connections),
    "worker_connections_limit": (
        "The most connections (worker_connections).",
        lambda it: it.gauges.most_connections,
    ),
    "worker_hub_lag_events": (
        "Events that have arrived from the store and are not delivered yet.",
        lambda it: it.gauges.behind,
    ),
    "worker_loop_lag_seconds": (
        "How late the event loop was in the last second.",
        lambda it: it.gauges.loop_lag / 1_000_000,
    ),
}


def _workers(workers: Sequence[Worker]) -> Iterator[Metric]:
    yield _gauge("workers", "Workers that live.", [([], len(workers))])
    pids = [([str(worker.number), str(worker.pid)], 1) for worker in workers]
    meaning = "The process id of each worker, always 1."
    yield _gauge("worker_info", meaning, pids, "worker", "pid")
    cpu = [([str(worker.number)], worker.usage.cpu) for worker in workers]
    yield _counter("worker_cpu_seconds", "Processor time of a worker.", cpu, "worker")
    for name, (meaning, value) in _OF_WORKERS.items():
        values = [([str(worker.number)], value(worker)) for worker in workers]
        yield _gauge(name, meaning, values, "worker")


def _gauge(name: str, meaning: str, samples: _Samples, *labels: str) -> Metric:
    family = GaugeMetricFamily(f"sseflask_{name}", meaning, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _counter(name: str, meaning: str, samples: _Samples, *labels: str) -> Metric:
    family = CounterMetricFamily(f"sseflask_{name}", meaning, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _histogram(name: str, meaning: str, counted: Histogram) -> HistogramMetricFamily:
    total, buckets = 0, list[tuple[str, float]]()
    for bound, count in zip((*counted.bounds, None), counted.counts, strict=True):
        total += count
        buckets.append(("+Inf" if bound is None else str(bound), total))
    family = HistogramMetricFamily(f"sseflask_{name}", meaning)
    family.add_metric([], buckets, counted.total / 1_000_000)
    return family
