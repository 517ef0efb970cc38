"""Relay: OpenAI streams from a scripted local upstream, 100 chunks a second each."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator

from benchmarks.client.load import Load, Stream
from benchmarks.client.order import OrderCheck
from benchmarks.percentile import percentile
from benchmarks.running import Running
from benchmarks.scenario import Figure, Metric, Options, Prepared, Sample, Scenario
from benchmarks.upstream import Upstream, read_chunk
from benchmarks.window import measure_window

_RATE = 100.0
_OPENED_PER_SECOND = 60.0
_KEEPS_UP = 0.9


@contextlib.contextmanager
def upstream(_options: Options) -> Iterator[Prepared]:
    """Have the scripted upstream run in the load client's loop for the time of the block."""
    scripted = Upstream(_RATE)
    environment = {
        "OPENAI_BASE_URL": f"http://127.0.0.1:{scripted.port}/v1",
        "OPENAI_API_KEY": "none",
    }
    with contextlib.closing(scripted):
        yield Prepared(environment, (scripted,))


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

    def check(self) -> OrderCheck:
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
            return chunk.number

        check = OrderCheck(sys.maxsize, number)
        return check


def measure(server: Running, options: Options) -> Sample:
    """Count CPU and chunks and time each chunk while every stream runs; then end and check them."""
    (scripted,) = server.beside
    assert isinstance(scripted, Upstream)
    delays = Delays(scripted)
    request = server.request("relay")
    with Load(server.port, server.beside) as load:
        load.add(
            (Stream(request, delays.check()) for _ in range(options.streams)), _OPENED_PER_SECOND
        )
        sample = measure_window(server, load, options, delays)
    offered = options.streams * _RATE
    if sample.values.get("events_per_second", 0) < _KEEPS_UP * offered:
        # The time would be that of the queue, whose length is this harness's choice.
        sample.remarks.append(f"did not keep up with {offered:,.0f} chunks/s: no latency")
    elif delays.found and not sample.faults:
        ordered = sorted(delays.found)
        sample.values["added_p50_ms"] = percentile(ordered, 50) / 1e6
        sample.values["added_p99_ms"] = percentile(ordered, 99) / 1e6
    return sample


SCENARIO = Scenario(
    name="relay",
    title="Relay: OpenAI streams, 100 chunks a second each",
    route="relay",
    reference="fastapi_uvicorn",
    metrics=(
        Metric("cpu_us_per_event", "CPU µs/chunk"),
        Metric("added_p50_ms", "added p50 ms", ".2f"),
        Metric("added_p99_ms", "added p99 ms", ".2f"),
    ),
    charts=("cpu_us_per_event",),
    options=Options(streams=60, seconds=3),
    measure=measure,
    figures=(
        Figure(
            text="relay: at most 0.4 x the CPU per chunk of FastAPI + AsyncOpenAI, typed chunks",
            metric="cpu_us_per_event",
            server="sseflask_service",
            reference="fastapi_uvicorn",
            at_most=0.4,
        ),
    ),
    prepare=upstream,
)
