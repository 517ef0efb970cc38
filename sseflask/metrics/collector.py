"""The figures as Prometheus has them."""

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

from sseflask.counters.counts import KINDS, Counts, Histogram
from sseflask.counters.snapshot import Snapshot, Worker, snapshot
from sseflask.extension import channels_of
from sseflask.runs.runs import Runs
from sseflask.store.api import Extent, StoreError

__all__ = ["FiguresCollector"]


class FiguresCollector(Collector):
    """Gives the figures of all workers of the server, at each call those of then.

    No label has a value that a client chooses. Counters go on when a worker dies.

    Args:
        app: an application that `sseflask.SSE` is registered with; its logs are told of as well.
    """

    def __init__(self, app: Flask) -> None:
        self._app = app

    def describe(self) -> Iterable[Metric]:
        """Nothing: a registry is not to ask for all figures only to learn their names."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The figures. Blocks for half a second at most, for each log."""
        now = snapshot()
        yield from _streams(now)
        yield from _channels(now.counts)
        yield from _runs(now)
        yield from _workers(now.workers)
        yield from self._logs()

    def _logs(self) -> Iterator[Metric]:
        asked: dict[str, Callable[[], Extent]] = {"channels": channels_of(self._app).extent}
        runs: Runs | None = self._app.extensions.get("sseflask.runs")
        if runs is not None:
            asked["runs"] = runs.extent
        available = _gauge("log_available", "Whether a log could be read (1) or not (0).", "log")
        size = _gauge("log_bytes", "What a log holds.", "log")
        oldest = _gauge("log_oldest_seconds", "The age of the oldest thing in a log.", "log")
        for name, extent in asked.items():
            try:
                found = extent()
            except StoreError:
                available.add_metric([name], 0)
                continue
            available.add_metric([name], 1)
            size.add_metric([name], found.bytes)
            oldest.add_metric([name], found.oldest)
        yield from (available, size, oldest)


def _streams(now: Snapshot) -> Iterator[Metric]:
    counts = now.counts.streams
    open_now = _gauge("streams_open", "Streams that are open.", "kind")
    opened = _counter("streams_opened", "Streams whose response has begun.", "kind")
    ended = _counter("streams_ended", "Streams that have ended.", "kind", "reason")
    refused = _counter("streams_refused", "Streams for which there was no room.", "kind")
    resumed = _counter("replays", "Streams whose client came back with an id.", "kind")
    events = _counter("events_delivered", "Events handed to clients' sockets.", "kind")
    replayed = _counter("events_replayed", "Of these, those that were read from a log.", "kind")
    sent = _counter("bytes_delivered", "Bytes of bodies handed to clients' sockets.", "kind")
    for kind in KINDS:
        each = counts[kind]
        open_now.add_metric([kind], now.open(kind))
        opened.add_metric([kind], each.opened)
        refused.add_metric([kind], each.refused)
        events.add_metric([kind], each.events)
        sent.add_metric([kind], each.bytes)
        for reason, count in each.ended.items():
            ended.add_metric([kind, reason], count)
        if kind != "stream":  # what a generator gives is in no log of ours
            resumed.add_metric([kind], each.resumed)
            replayed.add_metric([kind], each.replayed)
    yield from (open_now, opened, ended, refused, resumed, events, replayed, sent)


def _channels(counts: Counts) -> Iterator[Metric]:
    gaps = _counter("gaps", "Gaps that clients were told of.", "reason")
    for reason, count in counts.gaps.items():
        gaps.add_metric([reason], count)
    yield gaps
    published = _counter("events_published", "Events stored for channels.")
    published.add_metric([], counts.published)
    yield published
    yield _histogram("publish_seconds", "From a publication to its being stored.", counts.publish)
    yield _histogram(
        "delivery_seconds",
        "From an event's coming out of the log to its being sent to a worker's subscribers.",
        counts.delivery,
    )


def _runs(now: Snapshot) -> Iterator[Metric]:
    counts = now.counts
    running = _gauge("runs_running", "Runs that go on.")
    running.add_metric([], sum(worker.gauges.runs for worker in now.workers))
    yield running
    began = _counter("runs_began", "Runs that were begun.")
    began.add_metric([], counts.runs_began)
    yield began
    ended = _counter("runs_ended", "Runs that have ended.", "outcome")
    for outcome, count in counts.runs_ended.items():
        ended.add_metric([outcome], count)
    yield ended
    yield _histogram(
        "first_token_seconds",
        "From a run's begin to the first frame.",
        counts.first_token,
    )


#: What is told of each worker: name, meaning, and how it is found.
_OF_WORKERS: Mapping[str, tuple[str, Callable[[Worker], float]]] = {
    "worker_memory_bytes": ("Memory in use (resident).", lambda it: it.usage.memory),
    "worker_connections": ("Connections.", lambda it: it.gauges.connections),
    "worker_connections_limit": (
        "Connections that there may be (worker_connections).",
        lambda it: it.gauges.most_connections,
    ),
    "worker_hub_lag_events": (
        "Events that have come out of the log and are not passed on yet.",
        lambda it: it.gauges.behind,
    ),
    "worker_loop_lag_seconds": (
        "How late the event loop was in the last second.",
        lambda it: it.gauges.loop_lag / 1_000_000,
    ),
}


def _workers(workers: Sequence[Worker]) -> Iterator[Metric]:
    alive = _gauge("workers", "Workers that live.")
    alive.add_metric([], len(workers))
    yield alive
    info = _gauge("worker_info", "The process id of each worker, always 1.", "worker", "pid")
    cpu = _counter("worker_cpu_seconds", "Processor time that a worker has taken.", "worker")
    for worker in workers:
        info.add_metric([str(worker.number), str(worker.pid)], 1)
        cpu.add_metric([str(worker.number)], worker.usage.cpu)
    yield from (info, cpu)
    for name, (meaning, value) in _OF_WORKERS.items():
        gauge = _gauge(name, meaning, "worker")
        for worker in workers:
            gauge.add_metric([str(worker.number)], value(worker))
        yield gauge


def _gauge(name: str, meaning: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"sseflask_{name}", meaning, labels=labels)


def _counter(name: str, meaning: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"sseflask_{name}", meaning, labels=labels)


def _histogram(name: str, meaning: str, counted: Histogram) -> HistogramMetricFamily:
    sum_so_far, buckets = 0, list[tuple[str, float]]()
    for bound, count in zip((*counted.bounds, None), counted.counts, strict=True):
        sum_so_far += count
        buckets.append(("+Inf" if bound is None else str(bound), sum_so_far))
    family = HistogramMetricFamily(f"sseflask_{name}", meaning)
    family.add_metric([], buckets, counted.total / 1_000_000)
    return family
