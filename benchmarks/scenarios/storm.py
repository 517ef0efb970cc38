"""Storm: a redeploy ends all subscribers' streams, and they return at once with their ids.

A server without ids takes as many fresh subscribers instead.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from benchmarks.client.events import EventReader
from benchmarks.client.http import get, post
from benchmarks.client.load import Load, Stream
from benchmarks.client.order import OrderCheck
from benchmarks.client.requester import Asker, NoAnswer
from benchmarks.open_streams import Kind, faults, open_all
from benchmarks.percentile import percentile
from benchmarks.published_events import Deliveries, event
from benchmarks.scenario import Figure, Metric, Options, Sample, Scenario, client_limit
from benchmarks.server_process import Running
from benchmarks.steady_publisher import SteadyPublisher
from benchmarks.subscribers import with_log

_CHANNEL = "storm.news"
_BESIDE = "beside.storm"
"""The channel, without subscribers, to which somebody publishes while they return."""

_RATE = 50.0
"""Events that are published there in a second, whatever comes of the ones before."""

_AWAY = 1.0
"""Seconds from the last event before the redeploy to the first one after it, at least: nchan's ids
are seconds with a number, and each of its workers begins to count anew."""

_WARM_UP = 300
"""Fresh streams before those that are timed."""

_WAITING = 1000
"""Connections that wait for the server at a time; for each that is served another one comes.

More than its queue holds (2,048) would time the kernel, which tries again after a second.
"""

_AT_ONCE = 32
"""Streams opened, and read, before the publisher has its turn."""


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
    """Time the return of all subscribers, or the fresh ones of a server that has no ids.

    How long a worker takes to end and another one to start is not in it.
    """
    try:
        if "resume" in server.stack.routes:
            last_ids = _before_the_redeploy(server, options)
            with Asker(server.port) as asker:
                # What they all miss. Its answer shows that the new worker serves.
                _publish(server, asker, _CHANNEL, 1)
                return _timed(server, asker, _returning(server, last_ids), options, published=2)
        with Asker(server.port) as asker:
            _warm_up(server, options)
            return _timed(server, asker, _fresh(server), options, published=0)
    except _Failed as error:
        return Sample(faults=list(error.args))


def _before_the_redeploy(server: Running, options: Options) -> list[str]:
    """Redeploy; give the id of the last event that each subscriber has had before."""
    request, deliveries = server.request("subscribe", channel=_CHANNEL), Deliveries()
    checks = [_Subscriber(deliveries) for _ in range(options.streams)]
    streams = iter([Stream(request, check) for check in checks])
    with Load(server.port) as load:
        if not open_all(load, lambda: next(streams), options.streams, options.patience):
            raise _Failed(*faults(load))
        with Asker(server.port) as asker:
            _publish(server, asker, _CHANNEL, 0)
        if found := _received(load, 1, options.patience):
            raise _Failed(*found)
        with server.reloading(options.patience):
            load.run_for(_AWAY)
            if not load.run(load.all_ended, options.patience):
                raise _Failed("a redeploy did not end all streams")
        if cut := sum(stream.cut for stream in load.streams):
            raise _Failed(f"cut short by the redeploy: {cut} of {len(checks)} streams")
    last_ids = [check.last_id for check in checks]
    if not all(last_ids):
        raise _Failed(f"an event without an id: {last_ids.count('')} of {len(last_ids)} streams")
    return last_ids


def _warm_up(server: Running, options: Options) -> None:
    make = Kind("subscribe", 0, "storm.before").make(server)
    with Load(server.port) as load:
        if not open_all(load, make, min(_WARM_UP, options.streams), options.patience):
            raise _Failed(*faults(load))


def _returning(server: Running, last_ids: Sequence[str]) -> Iterator[Stream]:
    """Give subscribers that have had the event 0; they have returned when they have the event 1."""
    path, deliveries = server.stack.path("resume", channel=_CHANNEL), Deliveries()
    requests = [get(path, server.port, last_id) for last_id in last_ids]
    return (Stream(request, OrderCheck(2, deliveries.number, first=1)) for request in requests)


def _fresh(server: Running) -> Iterator[Stream]:
    request, deliveries = server.request("subscribe", channel=_CHANNEL), Deliveries()
    while True:
        yield Stream(request, OrderCheck(0, deliveries.number))


def _timed(
    server: Running, asker: Asker, streams: Iterator[Stream], options: Options, published: int
) -> Sample:
    """Open all streams at once, until the last one is served; then none may miss an event."""
    publisher = SteadyPublisher(lambda number: _publication(server, _BESIDE, number), asker, _RATE)
    with Load(server.port, (publisher,), _AT_ONCE) as load:
        cpu, began = server.cpu(), time.monotonic()
        publisher.go()
        served = open_all(load, lambda: next(streams), options.streams, options.patience, _WAITING)
        took, cpu = time.monotonic() - began, server.cpu() - cpu
        publisher.finish()
        load.run(lambda: publisher.settled, options.patience)
        found = publisher.faults + faults(load, "not every event came in time")
        if not found:
            # After this one nothing of those before can come any more, and all are subscribed.
            _publish(server, asker, _CHANNEL, published)
            found = _received(load, published + 1, options.patience)
    sample = Sample(faults=found)
    if served and publisher.took_ms:
        ordered = sorted(publisher.took_ms)
        sample.remarks = client_limit(cpu, took)
        sample.values = {
            "served_seconds": took,
            "cpu_us_per_client": cpu / options.streams * 1e6,
            "publish_p50_ms": percentile(ordered, 50),
            "publish_p99_ms": percentile(ordered, 99),
        }
    return sample


def _received(load: Load, amount: int, patience: float) -> list[str]:
    """Wait until all streams have had so many events; say what is wrong with them."""
    for stream in load.streams:
        stream.check.expect(amount)
    load.run(lambda: all(each.check.complete or each.ended_at for each in load.streams), patience)
    return faults(load, "not every event came in time")


def _publication(server: Running, channel: str, number: int) -> bytes:
    return post(server.stack.path("publish", channel=channel), server.port, event(number))


def _publish(server: Running, asker: Asker, channel: str, number: int) -> None:
    try:
        status = asker.ask_and_wait(_publication(server, channel, number))
    except NoAnswer as error:
        raise _Failed(f"event {number} not published: {error}") from error
    if not 200 <= status < 300:
        raise _Failed(f"event {number} refused: status {status}")


SCENARIO = Scenario(
    name="storm",
    title="Storm: a redeploy ends the streams of 10,000 subscribers, who return at once",
    route="subscribe",
    servers=("bare_c", "nchan", "sseflask_service", "sseflask_worker", "starlette_uvicorn"),
    reference="starlette_uvicorn",
    metrics=(
        Metric("served_seconds", "s to serve all", ".2f", wall=True),
        Metric("cpu_us_per_client", "CPU µs/client", ",.0f"),
        Metric("publish_p50_ms", "publish meanwhile: p50 ms"),
        Metric("publish_p99_ms", "p99 ms"),
    ),
    charts=("served_seconds",),
    # The time is what their return takes.
    options=Options(streams=10_000, seconds=0, patience=20),
    measure=measure,
    rounds=5,
    figures=(
        Figure(
            text="storm: 10,000 are served again, and miss nothing, in at most 1 x the time in "
            "which Starlette takes as many fresh ones (goal 1.2)",
            metric="served_seconds",
            server="sseflask_service",
            reference="starlette_uvicorn",
            at_most=1,
        ),
    ),
    prepare=with_log,
)
