"""Relay: OpenAI streams from a scripted local upstream, 100 chunks a second each."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator

from benchmarks.client.load import Load, Stream
from benchmarks.client.order import OrderCheck
from benchmarks.running import (
    Cores,
    NotStarted,
    Running,
    answers,
    end,
    free_port,
    start,
    wait_until,
)
from benchmarks.scenario import Figure, Metric, Options, Sample, Scenario
from benchmarks.upstream import chunk_number
from benchmarks.window import measure_window

_RATE = 100.0
_OPENED_PER_SECOND = 60.0
_START_PATIENCE = 10.0


@contextlib.contextmanager
def upstream(cores: Cores, options: Options) -> Iterator[dict[str, str]]:
    """Have the scripted upstream run, on the client's core, for the time of the block."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.upstream", "--port", str(port)]
    command += ["--chunks", str(_chunks(options)), "--rate", str(_RATE)]
    with tempfile.TemporaryFile() as errors:
        process = start(command, cores.client, {}, errors)
        try:
            if not wait_until(lambda: answers(port), _START_PATIENCE) or process.poll() is not None:
                raise NotStarted("the scripted upstream")
            yield {"OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1", "OPENAI_API_KEY": "none"}
        finally:
            end(process)


def _opening(options: Options) -> float:
    return options.streams / _OPENED_PER_SECOND


def _chunks(options: Options) -> int:
    return int(_RATE * (_opening(options) + 1 + options.seconds + 2))


def measure(server: Running, options: Options) -> Sample:
    """Count CPU and chunks while every stream runs; then read and check the rest."""
    chunks = _chunks(options)
    request = server.request("relay")
    with Load(server.port) as load:
        load.add(
            (Stream(request, OrderCheck(chunks, chunk_number)) for _ in range(options.streams)),
            _OPENED_PER_SECOND,
        )
        return measure_window(server, load, options)


SCENARIO = Scenario(
    name="relay",
    title="Relay: OpenAI streams, 100 chunks a second each",
    servers=("sseflask_service", "sseflask_worker", "flask_gevent", "fastapi_uvicorn"),
    reference="fastapi_uvicorn",
    metrics=(
        Metric("cpu_us_per_event", "CPU µs/chunk"),
        Metric("events_per_second", "chunks/s", ",.0f"),
    ),
    options=Options(streams=60, seconds=5),
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
