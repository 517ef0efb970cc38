"""Durable: a generator as a run that is stored, beside the same one as a plain stream.

Both are measured on the same server, one right after the other: first many streams, then, on the
idle server, how long one takes to its first item.

What a stored item takes beside a plain one is a row in the store's thread, the queue before it, and
the delivery after it: a plain item is written by the greenlet that has made it. What it takes more
of is Python between the two, nearly all of it for each item: longer pauses between transactions,
with more items in each, gain little. The goal of 1.3 leaves less above a plain item than the row
alone takes, so it is no bar: the rows of many runs lie on as many pages, each of which goes into
the journal whole. One table in the order of writing would take that away, not the Python.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from benchmarks.client.load import Load, Stream
from benchmarks.client.order import OrderCheck
from benchmarks.item_runs import run_stream
from benchmarks.open_streams import faults
from benchmarks.percentile import percentile
from benchmarks.scenario import Figure, Metric, Options, Sample, Scenario
from benchmarks.server_process import Running
from benchmarks.subscribers import with_log
from benchmarks.window import WARM_UP, measure_window

_RATE = 20.0
_OPENED_PER_SECOND = 400.0
_FIRST_ITEMS = 100
_PAUSE = 0.01

_TEXT = 5
"""Characters of an item, about as many as a model's token has."""


def measure(server: Running, options: Options) -> Sample:
    """Give the CPU for an item and the time to the first one, of both, and what storing adds."""
    sample = Sample()
    for name, route, stream in _KINDS:
        found = _measure_items(server, options, route, stream)
        sample.faults += [f"{name}: {fault}" for fault in found.faults]
        sample.values |= {f"{key}_{name}": value for key, value in found.values.items()}
    for name, found in _measure_first(server, options).items():
        sample.faults += [f"{name}, first item: {fault}" for fault in found.faults]
        sample.values |= {f"{key}_{name}": value for key, value in found.values.items()}
    of = sample.values
    if not sample.faults and of.get("cpu_us_per_event_plain"):
        of["stored_to_plain"] = of["cpu_us_per_event_stored"] / of["cpu_us_per_event_plain"]
        of["first_added_p50_ms"] = of["first_p50_ms_stored"] - of["first_p50_ms_plain"]
    return sample


def _measure_items(
    server: Running, options: Options, route: str, stream: Callable[[bytes, int], Stream]
) -> Sample:
    opening = options.streams / _OPENED_PER_SECOND
    count = int(_RATE * (2 * opening + WARM_UP + options.seconds + 1))
    request = server.request(route, rate=_RATE, count=count, size=_TEXT)
    with Load(server.port) as load:
        load.add((stream(request, count) for _ in range(options.streams)), _OPENED_PER_SECOND)
        return measure_window(server, load, options)


def _measure_first(server: Running, options: Options) -> dict[str, Sample]:
    """Open one of each in turn, and leave it when it has its first item."""
    delays: dict[str, list[float]] = {"plain": [], "stored": []}
    with Load(server.port) as load:
        for _ in range(_FIRST_ITEMS):
            for name, route in (("plain", "open"), ("stored", "stored_open")):
                stream = Stream(server.request(route), OrderCheck(1))
                load.add([stream], math.inf)
                began = time.monotonic()
                load.run(lambda: stream.began, options.patience)  # noqa: B023, run here and now
                if not stream.check.complete:
                    return {name: Sample(faults=faults(load))}
                delays[name].append((time.monotonic() - began) * 1e3)
                load.leave(stream)
                # What a server does when a client leaves is not to be in the next one's time.
                load.run_for(_PAUSE)
    return {
        name: Sample({"first_p50_ms": percentile(sorted(each), 50)})
        for name, each in delays.items()
    }


_KINDS: tuple[tuple[str, str, Callable[[bytes, int], Stream]], ...] = (
    ("plain", "items", lambda request, count: Stream(request, OrderCheck(count))),
    ("stored", "stored_items", run_stream),
)

SCENARIO = Scenario(
    name="durable",
    title="Durable: a generator whose items are stored, and the same one as a plain stream",
    route="stored_items",
    servers=("sseflask_worker", "sseflask_redis_worker"),
    reference="sseflask_worker",
    metrics=(
        Metric("cpu_us_per_event_stored", "stored: CPU µs/item"),
        Metric("cpu_us_per_event_plain", "plain: CPU µs/item"),
        Metric("stored_to_plain", "stored to plain", ".2f"),
        Metric("redis_us_per_event_stored", "stored: Redis µs/item"),
        Metric("first_p50_ms_stored", "stored: first item p50 ms", ".2f"),
        Metric("first_added_p50_ms", "added to the first item p50 ms", ".2f"),
    ),
    charts=(),
    options=Options(streams=500, seconds=3),
    measure=measure,
    figures=(
        Figure(
            text="durable: a stored item at most 2.5 x the CPU of the same generator's item "
            "through EventSourceResponse, 500 streams with 20 items/s each (the goal is 1.3)",
            metric="stored_to_plain",
            server="sseflask_worker",
            at_most=2.5,
        ),
        Figure(
            text="durable: added to the first item below 3 ms, p50",
            metric="first_added_p50_ms",
            server="sseflask_worker",
            at_most=3,
        ),
    ),
    prepare=with_log,
)
