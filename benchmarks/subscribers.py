"""Subscribers of one channel and who publishes to it: every event is checked on every stream."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType

from benchmarks.client.asking import Asker
from benchmarks.client.http import post
from benchmarks.client.load import Beside, Load, Stream
from benchmarks.client.order import OrderCheck
from benchmarks.opening import faults, open_all
from benchmarks.percentile import percentile
from benchmarks.publishing import SIZE, Deliveries, Publisher, channel_log, event
from benchmarks.running import Running
from benchmarks.scenario import Options, Prepared

CHANNEL = "prices"
_KEEPS_UP = 0.9


@dataclass
class Window:
    """What was published and delivered in a time, and what that took of the server.

    `delays` of each delivery in nanoseconds, in the order of arrival.
    """

    published: int
    deliveries: int
    cpu: float
    offered: float
    delays: Sequence[int] = field(default_factory=list)

    @property
    def cpu_us_per_event(self) -> float:
        """The server's CPU for one event to one subscriber, its share of the publication in it."""
        return self.cpu / max(self.deliveries, 1) * 1e6

    def times(self) -> dict[str, float]:
        """Give the percentiles over all deliveries, and how long events took to the last one."""
        if not self.delays:
            return {}
        ordered = sorted(self.delays)
        everybody = self.deliveries // self.published
        last = sorted(
            max(self.delays[start : start + everybody])
            for start in range(0, len(self.delays), everybody)
        )
        return {
            "delivery_p50_ms": percentile(ordered, 50) / 1e6,
            "delivery_p99_ms": percentile(ordered, 99) / 1e6,
            "last_ms": percentile(last, 50) / 1e6,
        }

    def remarks(self) -> list[str]:
        """Say so where the server took longer for an event than the pause between two."""
        if self.published >= int(self.offered * _KEEPS_UP):
            return []
        return [f"{self.published} events published in the time for {self.offered:.0f}"]


class Subscribers:
    """Streams of one channel and their publisher, all in the load client's thread."""

    def __init__(
        self,
        server: Running,
        patience: float,
        *,
        beside: Sequence[Beside] = (),
        at_once: int = -1,
        size: int = SIZE,
    ) -> None:
        self._server = server
        self._patience = patience
        self._request = server.request("subscribe", channel=CHANNEL)
        self._asker = Asker(server.port)
        self.deliveries = Deliveries()
        path = server.stack.path("publish", channel=CHANNEL)
        self.publisher = Publisher(
            lambda number: post(path, server.port, event(number, size)),
            [self._asker],
            lambda: self.deliveries.received,
        )
        self.load = Load(server.port, (self.publisher, *beside), at_once)

    def __enter__(self) -> Subscribers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._asker.close()
        self.load.__exit__(kind, error, trace)

    def open(self, amount: int) -> bool:
        """Add subscribers; give whether the server has answered all of them."""
        number, published = self.deliveries.number, self.publisher.published

        def make() -> Stream:
            return Stream(self._request, OrderCheck(published, number, first=published))

        came = open_all(self.load, make, amount, self._patience)
        self.publisher.subscribers = len(self.load.streams)
        return came

    def publish(self, seconds: float, rate: float, ahead: int = 1) -> bool:
        """Publish for a time, then wait for what is under way; give whether all of it came."""
        publisher = self.publisher
        publisher.go(rate, ahead)
        self.load.run(lambda: bool(publisher.faults), seconds)
        publisher.finish()
        return self.load.run(lambda: publisher.settled or bool(publisher.faults), self._patience)

    def publish_events(self, amount: int) -> bool:
        """Publish so many events, each when all have the one before; give whether all of it came.

        For what a server does only the first times.
        """
        publisher = self.publisher
        wanted = publisher.published + amount
        publisher.go(float("inf"))
        self.load.run(
            lambda: publisher.published >= wanted or bool(publisher.faults), self._patience
        )
        publisher.finish()
        return self.load.run(lambda: publisher.settled or bool(publisher.faults), self._patience)

    def window(self, seconds: float, rate: float, ahead: int = 1) -> Window:
        """Publish for a time and measure it, up to the last delivery."""
        deliveries, publisher = self.deliveries, self.publisher
        received, published, cpu = deliveries.received, publisher.published, self._server.cpu()
        deliveries.delays = []
        deliveries.timing = True
        self.publish(seconds, rate, ahead)
        deliveries.timing = False
        return Window(
            published=publisher.published - published,
            deliveries=deliveries.received - received,
            cpu=self._server.cpu() - cpu,
            offered=min(seconds * rate, 1e9),
            delays=deliveries.delays,
        )

    def faults(self) -> list[str]:
        """Say what is wrong: each stream should be open and have had all events in order."""
        for stream in self.load.streams:
            stream.check.expect(self.publisher.published)
        return self.publisher.faults + faults(self.load, "not every event came in time")


@contextlib.contextmanager
def with_log(_options: Options) -> Iterator[Prepared]:
    """Have a file for the log of the channels, of the server's life."""
    with channel_log() as environment:
        yield Prepared(environment)
