"""Subscribers of one channel and its publisher: every event is checked on every stream."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from types import TracebackType

from benchmarks.client.http import post
from benchmarks.client.load import Beside, Load, Stream
from benchmarks.client.order import OrderCheck
from benchmarks.client.requester import Asker
from benchmarks.open_streams import faults, open_all
from benchmarks.percentile import percentile
from benchmarks.published_events import SIZE, Deliveries, Publisher, event, logs
from benchmarks.scenario import Options, Prepared
from benchmarks.server_process import Running

CHANNEL = "prices"
_KEEPS_UP = 0.9
_SETTLE = 0.3


@dataclass
class Window:
    """What was published and delivered in a time, and what that took of the server.

    `delays` are the nanoseconds to each subscriber, for each event.
    """

    published: int
    deliveries: int
    cpu: float
    offered: float
    delays: Sequence[Sequence[int]]

    @property
    def cpu_us_per_event(self) -> float:
        """The server's CPU for one event to one subscriber, its share of the publication in it."""
        return self.cpu / max(self.deliveries, 1) * 1e6

    def times(self) -> dict[str, float]:
        """Give the percentiles over all deliveries, and how long events took to the last one."""
        ordered = sorted(chain.from_iterable(self.delays))
        if not ordered:
            return {}
        return {
            "delivery_p50_ms": percentile(ordered, 50) / 1e6,
            "delivery_p99_ms": percentile(ordered, 99) / 1e6,
            "last_ms": percentile(sorted(max(each) for each in self.delays if each), 50) / 1e6,
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
        askers: Sequence[Asker] = (),
        beside: Sequence[Beside] = (),
        at_once: int = -1,
        size: int = SIZE,
    ) -> None:
        self._server = server
        self._patience = patience
        self._request = server.request("subscribe", channel=CHANNEL)
        self._askers = list(askers) or [Asker(server.port)]
        path = server.stack.path("publish", channel=CHANNEL)
        self.deliveries: list[Deliveries] = []
        self.publisher = Publisher(
            lambda number: post(path, server.port, event(number, size)),
            self._askers,
            self._received,
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
        for asker in self._askers:
            asker.close()
        self.load.__exit__(kind, error, trace)

    def open(self, amount: int) -> bool:
        """Add subscribers; give whether the server has answered all of them.

        Their deliveries are counted and timed together, apart from those of others.
        """
        deliveries, published = Deliveries(), self.publisher.published
        self.deliveries.append(deliveries)

        def make() -> Stream:
            check = OrderCheck(published, deliveries.number, first=published)
            return Stream(self._request, check)

        came = open_all(self.load, make, amount, self._patience)
        self.publisher.copies = len(self.load.streams)
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

        For what a server does only the first times. A subscriber has its headers by now; that the
        other worker knows of it as well may take a moment longer.
        """
        publisher = self.publisher
        self.load.run_for(_SETTLE)
        wanted = publisher.published + amount
        publisher.go(float("inf"))
        came = self.load.run(
            lambda: publisher.published >= wanted or bool(publisher.faults), self._patience
        )
        publisher.finish()
        return came and self.load.run(
            lambda: publisher.settled or bool(publisher.faults), self._patience
        )

    def window(self, seconds: float, rate: float, ahead: int = 1) -> Window:
        """Publish for a time and measure it, up to the last delivery."""
        publisher = self.publisher
        received, published, cpu = self._received(), publisher.published, self._server.cpu()
        for each in self.deliveries:
            each.delays.clear()
            each.timing = True
        self.publish(seconds, rate, ahead)
        for each in self.deliveries:
            each.timing = False
        return Window(
            published=publisher.published - published,
            deliveries=self._received() - received,
            cpu=self._server.cpu() - cpu,
            offered=seconds * rate,
            delays=[
                list(chain.from_iterable(each.delays[number] for each in self.deliveries))
                for number in range(published, publisher.published)
            ],
        )

    def _received(self) -> int:
        return sum(each.received for each in self.deliveries)

    def faults(self) -> list[str]:
        """Say what is wrong: each stream should be open and have had all events in order."""
        for stream in self.load.streams:
            stream.check.expect(self.publisher.published)
        return self.publisher.faults + faults(self.load, "not every event came in time")


@contextlib.contextmanager
def with_log(_options: Options) -> Iterator[Prepared]:
    """Have files for the server's logs, of the server's life."""
    with logs() as environment:
        yield Prepared(environment)
