"""Relay: OpenAI streams from a scripted local upstream, 100 chunks a second each.

What the server has for runs, it uses: where a relayed stream is stored, with ids by which it can be
resumed, that is in its figures, and the ids are checked.
"""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Iterator

from benchmarks.client.ids import RunIds
from benchmarks.client.load import Load, Stream
from benchmarks.client.order import OrderCheck
from benchmarks.percentile import percentile
from benchmarks.published_events import logs
from benchmarks.scenario import Figure, Metric, Options, Prepared, Sample, Scenario
from benchmarks.server_process import Running
from benchmarks.upstream import AROUND, Upstream, read_chunk
from benchmarks.window import measure_window

_RATE = 100.0
_OPENED_PER_SECOND = 60.0
_KEEPS_UP = 0.9

_SHORT = 3
"""Chunks of a stream of which only the first is timed."""

_ASKED_PER_SECOND = 20.0


@contextlib.contextmanager
def upstream(_options: Options, rate: float = _RATE) -> Iterator[Prepared]:
    """Have the scripted upstream run in the load client's loop for the time of the block."""
    scripted = Upstream(rate)
    environment = {
        "OPENAI_BASE_URL": f"http://127.0.0.1:{scripted.port}/v1",
        "OPENAI_API_KEY": "none",
    }
    with contextlib.closing(scripted), logs() as files:
        yield Prepared({**environment, **files}, (scripted,))


class Delays:
    """The nanoseconds from the upstream's `send` of a chunk to its event here, while it is entered.

    That is what the relay adds, and twice the loopback, which the bare relay in the same table
    shows alone.
    """

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self.found: list[int] = []
        self._entered = False

    def __enter__(self) -> None:
        self._entered = True

    def __exit__(self, *_: object) -> None:
        self._entered = False

    def check(self, ids: RunIds | None = None) -> OrderCheck:
        """Give the check of one stream, whose last chunk says that it is the last."""

        def number(data: bytes) -> int | None:
            chunk = read_chunk(data)
            if chunk is None:
                return None
            self._upstream.received += 1
            if self._entered:
                self.found.append(time.monotonic_ns() - chunk.sent)
            if chunk.last:
                check.expect(chunk.number + 1)
                if ids:
                    ids.expect(chunk.number + 1 + AROUND)
            return chunk.number

        check = OrderCheck(sys.maxsize, number, ids=ids)
        return check


def run_ids(server: Running) -> RunIds | None:
    """Give what checks the ids of one stream, None where the server need not have any."""
    return RunIds() if "run" in server.stack.routes else None


def measure(server: Running, options: Options) -> Sample:
    """Count CPU and chunks and time each chunk while every stream runs; then end and check them.

    Before the end, with all of them running, more are opened one at a time for their first chunk.
    """
    (scripted,) = server.beside
    assert isinstance(scripted, Upstream)
    delays = Delays(scripted)
    first: list[float] = []

    def stream() -> Stream:
        return Stream(server.request("relay"), delays.check(run_ids(server)))

    with Load(server.port, server.beside) as load:

        def time_first_chunks() -> None:
            scripted.length = _SHORT
            over = time.monotonic() + options.seconds
            while (began := time.monotonic()) < over:
                short = stream()
                load.add([short], math.inf)
                load.run(lambda: short.began, over - began)  # noqa: B023, run here and now
                if short.first_at:
                    first.append(short.first_at - began)
                # Of a stack that takes longer to end it there are several at a time.
                load.run_for(max(began + 1 / _ASKED_PER_SECOND - time.monotonic(), 0))

        load.add((stream() for _ in range(options.streams)), _OPENED_PER_SECOND)
        sample = measure_window(server, load, options, delays, time_first_chunks)
        runs = {each.check.ids.run for each in load.streams if each.check.ids}
        if runs and len(runs) < len(load.streams):
            sample.faults.append(f"{len(load.streams)} streams of {len(runs)} runs")
    offered = options.streams * _RATE
    if sample.values.get("events_per_second", 0) < _KEEPS_UP * offered:
        # The time would be that of the queue, whose length is this harness's choice.
        sample.remarks.append(f"did not keep up with {offered:,.0f} chunks/s: no latency")
    elif delays.found and not sample.faults:
        ordered = sorted(delays.found)
        sample.values["added_p50_ms"] = percentile(ordered, 50) / 1e6
        sample.values["added_p99_ms"] = percentile(ordered, 99) / 1e6
        if first:
            sample.values["first_p50_ms"] = percentile(sorted(first), 50) * 1e3
    return sample


SCENARIO = Scenario(
    name="relay",
    title="Relay: OpenAI streams, 100 chunks a second each",
    route="relay",
    reference="fastapi_uvicorn",
    metrics=(
        Metric("cpu_us_per_event", "CPU µs/chunk"),
        Metric("redis_us_per_event", "Redis µs/chunk"),
        Metric("added_p50_ms", "added p50 ms", ".2f"),
        Metric("added_p99_ms", "added p99 ms", ".2f"),
        Metric("first_p50_ms", "first chunk p50 ms", ".2f"),
    ),
    charts=("cpu_us_per_event",),
    options=Options(streams=60, seconds=3),
    measure=measure,
    figures=(
        Figure(
            text="relay, stored and resumable: at most 0.45 x the CPU per chunk of FastAPI + "
            "AsyncOpenAI, typed chunks, not stored",
            metric="cpu_us_per_event",
            server="sseflask_service",
            reference="fastapi_uvicorn",
            at_most=0.45,
        ),
        Figure(
            text="relay: added to each of 6,000 chunks/s below 2 ms, p50",
            metric="added_p50_ms",
            server="sseflask_service",
            at_most=2,
        ),
        Figure(
            text="relay: added to each of 6,000 chunks/s below 10 ms, p99",
            metric="added_p99_ms",
            server="sseflask_service",
            at_most=10,
        ),
        Figure(
            text="relay: added to the first chunk below 5 ms, p50, beside 6,000 chunks/s",
            metric="first_p50_ms",
            server="sseflask_service",
            at_most=5,
        ),
        Figure(
            text="relay, stored on Redis: at most 0.55 x the CPU per chunk of FastAPI + "
            "AsyncOpenAI, typed chunks, not stored",
            metric="cpu_us_per_event",
            server="sseflask_redis",
            reference="fastapi_uvicorn",
            at_most=0.55,
        ),
        Figure(
            text="relay, stored on Redis: added to each of 6,000 chunks/s below 2.5 ms, p50",
            metric="added_p50_ms",
            server="sseflask_redis",
            at_most=2.5,
        ),
    ),
    prepare=upstream,
)
