"""Tick: many streams, each with an event every 50 ms."""

from __future__ import annotations

from benchmarks.client.load import Load, Stream
from benchmarks.client.order import OrderCheck
from benchmarks.scenario import Figure, Metric, Options, Sample, Scenario
from benchmarks.server_process import Running
from benchmarks.window import WARM_UP, measure_window

_RATE = 20.0
_OPENED_PER_SECOND = 400.0


def measure(server: Running, options: Options) -> Sample:
    """Count CPU and events while every stream runs; then read and check the rest."""
    opening = options.streams / _OPENED_PER_SECOND
    count = int(_RATE * (2 * opening + WARM_UP + options.seconds + 1))
    request = server.request("tick", rate=_RATE, count=count)
    with Load(server.port) as load:
        load.add(
            (Stream(request, OrderCheck(count)) for _ in range(options.streams)),
            _OPENED_PER_SECOND,
        )
        return measure_window(server, load, options)


SCENARIO = Scenario(
    name="tick",
    title="Tick: many streams, 20 events a second each",
    route="tick",
    reference="flask_gevent",
    metrics=(
        Metric("cpu_us_per_event", "CPU µs/event", ".2f"),
        Metric("events_per_second", "events/s", ".2f", wall=True, more_is_better=True),
    ),
    charts=("cpu_us_per_event",),
    options=Options(streams=500, seconds=2),
    measure=measure,
    figures=(
        Figure(
            text="tick: at most 0.9 x the CPU per event of plain gunicorn -k gevent (goal 0.75)",
            metric="cpu_us_per_event",
            server="sseflask_worker",
            reference="flask_gevent",
            at_most=0.9,
        ),
        Figure(
            text="tick of `Event` objects: at most 1.15 x the CPU per event of plain gunicorn "
            "-k gevent (goal 0.9)",
            metric="cpu_us_per_event",
            server="sseflask_events",
            reference="flask_gevent",
            at_most=1.15,
        ),
        Figure(
            text="tick: less CPU per event than Starlette on uvicorn",
            metric="cpu_us_per_event",
            server="sseflask_worker",
            reference="starlette_uvicorn",
            at_most=0.9999,
        ),
    ),
)
