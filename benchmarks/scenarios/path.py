"""Path: how many calls an event takes from the generator to the socket; counts, not times."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks.call_counts import (
    VARIABLE,
    Calls,
    NotTraced,
    PythonCalls,
    SystemCalls,
    counted_environment,
)
from benchmarks.client.load import Load, Stream
from benchmarks.client.order import FloodCheck, OrderCheck
from benchmarks.scenario import Metric, Options, Prepared, Sample, Scenario
from benchmarks.server_process import Running
from benchmarks.window import WARM_UP

_RATE = 200.0
_FLOODS = (1_000, 4_000)
"""What a request costs whatever its events falls out of the difference between the two."""
_PATIENT = 60.0


@contextlib.contextmanager
def counting(_options: Options) -> Iterator[Prepared]:
    """Have the server's Python calls counted from its start on."""
    with counted_environment() as environment:
        yield Prepared(environment)


def measure(server: Running, options: Options) -> Sample:
    """Count Python calls, take that hook out, then count system calls of an undisturbed server."""
    sample = Sample()
    few, many = _FLOODS
    python = PythonCalls(Path(server.environment[VARIABLE]))
    # Imports and caches, once; the hook makes them slow.
    if not _flood(server, replace(options, patience=_PATIENT), sample, few):
        return sample

    def python_calls(load: Callable[[], int]) -> tuple[Calls, int]:
        before = python.read()
        events = load()
        return python.read() - before, events

    less, _ = python_calls(lambda: _flood(server, options, sample, few))
    more, _ = python_calls(lambda: _flood(server, options, sample, many))
    _keep(sample, "flood", more - less, (many - few) * options.streams)
    with _ticking(server, options, sample) as tick:
        _keep(sample, "tick", *python_calls(tick))
    python.stop()

    with contextlib.closing(SystemCalls(server.processes())) as system:

        def system_calls(load: Callable[[], int]) -> tuple[int, int]:
            system.start()
            events = load()
            return system.stop(), events

        try:
            less_calls, _ = system_calls(lambda: _flood(server, options, sample, few))
            more_calls, _ = system_calls(lambda: _flood(server, options, sample, many))
            sample.values["flood_system_calls"] = (more_calls - less_calls) / (
                (many - few) * options.streams
            )
            with _ticking(server, options, sample) as tick:
                calls, events = system_calls(tick)
                sample.values["tick_system_calls"] = calls / max(events, 1)
        except NotTraced as error:
            sample.remarks.append(f"system calls not counted: {error}")
    return sample


def _flood(server: Running, options: Options, sample: Sample, count: int) -> int:
    """Read a whole flood; give its number of events."""
    with Load(server.port) as load:
        request = server.request("flood", count=count)
        load.add(Stream(request, FloodCheck(count)) for _ in range(options.streams))
        load.run_to_end(options.patience)
        sample.faults += load.faults()
        return load.events()


@contextlib.contextmanager
def _ticking(server: Running, options: Options, sample: Sample) -> Iterator[Callable[[], int]]:
    """Have warm, ticking streams; what is yielded reads for some seconds and counts events."""
    count = 1_000_000
    request = server.request("tick", rate=_RATE, count=count)
    with Load(server.port) as load:
        load.add(Stream(request, OrderCheck(count)) for _ in range(options.streams))
        ready = load.run_until_all_began(options.patience)
        load.run_for(WARM_UP)

        def tick() -> int:
            before = load.events()
            load.run_for(options.seconds)
            events = load.events() - before
            if not (ready and events):
                sample.faults.append("stalled")
            return events

        yield tick
        for stream in load.streams:
            sample.faults += [f"{fault.kind}: {fault.amount}" for fault in stream.check.faults()]
            if stream.ended_at:
                sample.faults.append("a stream ended while it was measured")


def _keep(sample: Sample, kind: str, calls: Calls, events: int) -> None:
    if calls.python:  # of a server in C there is nothing to count
        sample.values[f"{kind}_python_calls"] = calls.python / max(events, 1)
        sample.values[f"{kind}_builtin_calls"] = calls.builtin / max(events, 1)


SCENARIO = Scenario(
    name="path",
    title="Path: calls per event, one stream",
    route="tick",
    servers=(
        "bare_c",
        "sseflask_worker",
        "sseflask_events",
        "flask_gevent",
        "starlette_uvicorn",
        "sse_starlette",
    ),
    reference="starlette_uvicorn",
    metrics=(
        Metric("tick_python_calls", "tick: Python"),
        Metric("tick_builtin_calls", "tick: built-in"),
        Metric("tick_system_calls", "tick: system"),
        Metric("flood_python_calls", "flood: Python", ".2f"),
        Metric("flood_builtin_calls", "flood: built-in", ".2f"),
        Metric("flood_system_calls", "flood: system", ".3f"),
    ),
    charts=(),
    options=Options(streams=1, seconds=1),
    measure=measure,
    rounds=1,
    prepare=counting,
)
