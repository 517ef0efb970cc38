"""Comeback: clients of a pattern of thousands of channels return at once, while others publish."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Sequence

from benchmarks.client import load as load_client
from benchmarks.client.events import EventReader
from benchmarks.client.http import post
from benchmarks.client.load import Load, Stream
from benchmarks.client.order import OrderCheck
from benchmarks.client.requester import Asker, NoAnswer
from benchmarks.open_streams import faults, open_all
from benchmarks.percentile import percentile
from benchmarks.published_events import Deliveries, event
from benchmarks.scenario import Figure, Metric, Options, Sample, Scenario
from benchmarks.server_process import Running
from benchmarks.steady_publisher import SteadyPublisher
from benchmarks.subscribers import with_log

_CHANNELS = 50
"""Channels for each client: 15,000 for 300."""

_RATE = 20.0
"""Events that somebody publishes in a second, whatever comes of the ones before."""

_PATTERN = "u.*"
_FILLERS = 8
_BEFORE = 0.5
"""Seconds for which is published before the clients return."""

_AT_ONCE = 32
"""Streams read before the publisher has its turn."""


class _Watcher(OrderCheck):
    """A subscriber from the beginning, of whose events the ids are known: the others have lost one
    of them."""

    __slots__ = ("_ids_of", "last_ids")

    def __init__(self, first: int, deliveries: Deliveries) -> None:
        super().__init__(first, deliveries.number, first=first)
        self._ids_of = EventReader()
        self.last_ids: deque[str] = deque(maxlen=2)

    def feed(self, piece: bytes) -> None:
        """Take the next bytes of the stream."""
        received = self._ids_of.feed_with_ids(piece)
        self.last_ids += [event.id.decode() for event in received if event.id is not None]
        super().feed(piece)


def _publication(server: Running, number: int, channels: int) -> bytes:
    path = server.stack.path("publish", channel=f"u.{number % channels}")
    return post(path, server.port, event(number))


def measure(server: Running, options: Options) -> Sample:
    """Fill the channels, have all clients return with an id one event old, see what they get."""
    channels = options.streams * _CHANNELS
    if found := _fill(server, channels, options.patience):
        return Sample(faults=found)
    deliveries = Deliveries()
    with contextlib.ExitStack() as opened:
        asker = opened.enter_context(Asker(server.port))
        publisher = SteadyPublisher(
            lambda number: _publication(server, number, channels), asker, _RATE, channels
        )
        load = opened.enter_context(Load(server.port, (publisher,), _AT_ONCE))
        watcher = _Watcher(channels, deliveries)
        request = server.request("subscribe", channel=_PATTERN)
        if not open_all(load, lambda: Stream(request, watcher), 1, options.patience):
            return Sample(faults=faults(load))
        publisher.go()
        load.run_for(_BEFORE)
        load.run(lambda: bool(publisher.faults) or len(watcher.last_ids) == 2, options.patience)
        if publisher.faults or len(watcher.last_ids) < 2:
            return Sample(faults=publisher.faults or ["no events with ids"])
        # Between these two calls nothing is read, so the last event is the one they are behind.
        last_id, missed = watcher.last_ids[0], watcher.next - 1
        request = server.request("subscribe", channel=f"{_PATTERN}?last_event_id={last_id}")
        publisher.took_ms.clear()
        began, cpu = time.monotonic(), server.cpu()

        def client() -> Stream:
            return Stream(request, OrderCheck(missed + 1, deliveries.number, first=missed))

        returned = open_all(load, client, options.streams, options.patience)
        took, cpu = time.monotonic() - began, server.cpu() - cpu
        load.run_for(max(0.0, options.seconds - took))
        publisher.finish()
        load.run(lambda: publisher.settled, options.patience)
        for stream in load.streams:
            stream.check.expect(publisher.published)
        load.run(
            lambda: all(each.check.complete or each.ended_at for each in load.streams),
            options.patience,
        )
        sample = Sample(faults=publisher.faults + faults(load, "not every event came in time"))
    if returned and publisher.took_ms:
        sample.values = _values(publisher.took_ms, took, cpu, options.streams)
    return sample


def _values(took_ms: Sequence[float], took: float, cpu: float, clients: int) -> dict[str, float]:
    ordered = sorted(took_ms)
    return {
        "publish_p99_ms": percentile(ordered, 99),
        "publish_p50_ms": percentile(ordered, 50),
        "publish_most_ms": ordered[-1],
        "served_ms": took * 1e3,
        "cpu_ms_per_client": cpu / clients * 1e3,
    }


def _fill(server: Running, channels: int, patience: float) -> list[str]:
    """Publish an event to each channel; say what was wrong."""
    with contextlib.ExitStack() as opened:
        askers = [opened.enter_context(Asker(server.port)) for _ in range(_FILLERS)]
        number, last = 0, time.monotonic()
        while number < channels or any(asker.waiting for asker in askers):
            for asker in askers:
                try:
                    status = asker.answer() if asker.waiting else 0
                    if status is None:
                        continue
                    if status and not 200 <= status < 300:
                        return [f"a channel could not be filled: status {status}"]
                    if number < channels:
                        asker.ask(_publication(server, number, channels))
                        number += 1
                        last = time.monotonic()
                except NoAnswer as error:
                    return [f"a channel could not be filled: {error}"]
            if time.monotonic() > last + patience:
                return ["the channels could not be filled in time"]
            time.sleep(load_client.WAIT)
    return []


SCENARIO = Scenario(
    name="comeback",
    title="Comeback: 300 clients return to a pattern of 15,000 channels, each one event behind",
    route="subscribe",
    servers=("sseflask_service", "sseflask_redis"),
    reference="sseflask_service",
    metrics=(
        Metric("publish_p99_ms", "publish p99 ms"),
        Metric("publish_p50_ms", "p50 ms"),
        Metric("publish_most_ms", "most ms"),
        Metric("served_ms", "ms until all are served", ".0f"),
        Metric("cpu_ms_per_client", "CPU ms/client", ".2f"),
    ),
    charts=(),
    options=Options(streams=300, seconds=5, patience=20),
    measure=measure,
    rounds=3,
    figures=(
        Figure(
            text="comeback: publish p99 below 50 ms while 300 clients return to a pattern of 15,000"
            " channels, all of them served, none cut",
            metric="publish_p99_ms",
            server="sseflask_service",
            at_most=50,
        ),
        Figure(
            text="comeback on Redis: publish p99 below 50 ms while 300 clients return to a pattern "
            "of 15,000 channels, all of them served, none cut",
            metric="publish_p99_ms",
            server="sseflask_redis",
            at_most=50,
        ),
    ),
    prepare=with_log,
)
