"""Storm: all subscribers of a channel lose their connections at once and return with their ids.

So they do when a router restarts. A server without ids takes as many fresh streams instead.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from benchmarks.client.events import EventReader
from benchmarks.client.http import get, post
from benchmarks.client.load import Load, Stream
from benchmarks.client.order import OrderCheck
from benchmarks.client.requester import Asker, NoAnswer
from benchmarks.open_streams import ONE_EVENT, faults, open_all
from benchmarks.published_events import Deliveries, event
from benchmarks.scenario import Metric, Options, Sample, Scenario, client_limit
from benchmarks.server_process import Running
from benchmarks.subscribers import with_log

_CHANNEL = "storm.news"
_WARM_UP = 300
"""Fresh streams before those that are timed."""

_WAITING = 1000
"""Connections that wait for the server at a time; for each that is served another one comes.

More than its queue holds (2,048) would time the kernel, which tries again after a second.
"""


class _Subscriber(OrderCheck):
    """A check of one event that knows its id."""

    __slots__ = ("_ids_of", "last_id")

    def __init__(self, deliveries: Deliveries) -> None:
        super().__init__(0, deliveries.number)
        self._ids_of = EventReader()
        self.last_id = ""

    def feed(self, piece: bytes) -> None:
        """Take the next bytes of the stream."""
        for received in self._ids_of.feed_with_ids(piece):
            self.last_id = (received.id or b"").decode()
        super().feed(piece)


class _Failed(Exception):
    """Something went wrong before anything could be timed; its arguments are the faults."""


def measure(server: Running, options: Options) -> Sample:
    """Time the return of all subscribers, or the fresh streams of a server that has no ids."""
    try:
        if "resume" not in server.stack.routes:
            return _fresh_streams(server, options)
        with Asker(server.port) as asker:
            return _storm(server, options, asker)
    except _Failed as error:
        return Sample(faults=list(error.args))


def _fresh_streams(server: Running, options: Options) -> Sample:
    make = ONE_EVENT.make(server)
    with Load(server.port) as load:
        if not open_all(load, make, min(_WARM_UP, options.streams), options.patience):
            raise _Failed(*faults(load))
        return _timed(server, load, make, options)


def _storm(server: Running, options: Options, asker: Asker) -> Sample:
    """Give each subscriber an event, close all, publish another and time their return for it."""
    last_ids = _subscribed_and_closed(server, options, asker)
    _publish(server, asker, 1)
    path, deliveries = server.stack.path("resume", channel=_CHANNEL), Deliveries()
    requests = iter([get(path, server.port, last_id) for last_id in last_ids])

    def client() -> Stream:
        return Stream(next(requests), OrderCheck(2, deliveries.number, first=1))

    with Load(server.port) as load:
        sample = _timed(server, load, client, options)
        if not sample.faults:
            # After this one nothing of the second can come any more, and all are subscribed.
            _publish(server, asker, 2)
            sample.faults = _received(load, 3, options.patience)
    return sample


def _subscribed_and_closed(server: Running, options: Options, asker: Asker) -> list[str]:
    """Give the id of the event that each subscriber has had before its connection was closed."""
    request, deliveries = server.request("subscribe", channel=_CHANNEL), Deliveries()
    checks = [_Subscriber(deliveries) for _ in range(options.streams)]
    streams = iter([Stream(request, check) for check in checks])
    with Load(server.port) as load:
        if not open_all(load, lambda: next(streams), options.streams, options.patience):
            raise _Failed(*faults(load))
        _publish(server, asker, 0)
        if found := _received(load, 1, options.patience):
            raise _Failed(*found)
    last_ids = [check.last_id for check in checks]
    if not all(last_ids):
        raise _Failed(f"an event without an id: {last_ids.count('')} of {len(last_ids)} streams")
    return last_ids


def _received(load: Load, amount: int, patience: float) -> list[str]:
    """Wait until all streams have had so many events; say what is wrong with them."""
    for stream in load.streams:
        stream.check.expect(amount)
    load.run(lambda: all(each.check.complete or each.ended_at for each in load.streams), patience)
    return faults(load, "not every event came in time")


def _publish(server: Running, asker: Asker, number: int) -> None:
    path = server.stack.path("publish", channel=_CHANNEL)
    try:
        status = asker.ask_and_wait(post(path, server.port, event(number)))
    except NoAnswer as error:
        raise _Failed(f"event {number} not published: {error}") from error
    if not 200 <= status < 300:
        raise _Failed(f"event {number} refused: status {status}")


def _timed(server: Running, load: Load, make: Callable[[], Stream], options: Options) -> Sample:
    """Open all streams at once; what is timed ends when the last one has had its event."""
    cpu, began = server.cpu(), time.monotonic()
    served = open_all(load, make, options.streams, options.patience, _WAITING)
    took, cpu = time.monotonic() - began, server.cpu() - cpu
    sample = Sample(faults=faults(load, "not every event came in time"))
    if served:
        sample.remarks = client_limit(cpu, took)
        sample.values = {
            "served_seconds": took,
            "cpu_us_per_client": cpu / options.streams * 1e6,
        }
    return sample


SCENARIO = Scenario(
    name="storm",
    title="Storm: 10,000 subscribers lose their connections and return at once, each for an event",
    route="subscribe",
    servers=("bare_c", "sseflask_service", "sseflask_worker", "starlette_uvicorn"),
    reference="starlette_uvicorn",
    metrics=(
        Metric("served_seconds", "s to serve all", ".2f", wall=True),
        Metric("cpu_us_per_client", "CPU µs/client", ",.0f"),
    ),
    charts=("served_seconds",),
    # The time is what their return takes.
    options=Options(streams=10_000, seconds=0, patience=20),
    measure=measure,
    rounds=3,
    prepare=with_log,
)
