"""Fan-out: what is published once goes to many subscribers of one worker."""

from __future__ import annotations

from benchmarks.scenario import Figure, Metric, Options, Sample, Scenario
from benchmarks.server_process import Running
from benchmarks.subscribers import Subscribers, with_log

_DELIVERIES_PER_SECOND = 20_000.0
"""So few that servers have time to spare, and so many that what they do meanwhile is little."""

_WARM_UP = 3


def measure(server: Running, options: Options) -> Sample:
    """Count CPU and deliveries while event after event goes to everybody, none before the last."""
    with Subscribers(server, options.patience) as subscribers:
        if not subscribers.open(options.streams) or not subscribers.publish_events(_WARM_UP):
            return Sample(faults=subscribers.faults() or ["an event did not reach everybody"])
        window = subscribers.window(options.seconds, _DELIVERIES_PER_SECOND / options.streams)
        sample = Sample(window.times(), subscribers.faults(), window.remarks())
    sample.values["cpu_us_per_event"] = window.cpu_us_per_event
    return sample


METRICS = (
    Metric("cpu_us_per_event", "CPU µs/event"),
    Metric("delivery_p50_ms", "p50 ms", ".1f", wall=True),
    Metric("delivery_p99_ms", "p99 ms", ".1f", wall=True),
    Metric("last_ms", "ms until the last subscriber has it", ".1f", wall=True),
)

SCENARIO = Scenario(
    name="fanout",
    title="Fan-out: one event to 10,000 subscribers of one worker",
    route="subscribe",
    servers=(
        "bare_c",
        "bare_python",
        "nchan",
        "sseflask_service",
        "sseflask_redis",
        "flask_gevent",
        "starlette_uvicorn",
    ),
    reference="bare_c",
    metrics=METRICS,
    charts=("cpu_us_per_event",),
    options=Options(streams=10_000, seconds=3, patience=20),
    measure=measure,
    rounds=5,
    figures=(
        Figure(
            text="fan-out to 10,000: at most 1.2 x the CPU per delivered event of a loop in C "
            "(goal 1.15)",
            metric="cpu_us_per_event",
            server="sseflask_service",
            reference="bare_c",
            at_most=1.2,
        ),
        Figure(
            text="fan-out to 10,000: less CPU per delivered event than nginx nchan",
            metric="cpu_us_per_event",
            server="sseflask_service",
            reference="nchan",
            at_most=0.9999,
        ),
        Figure(
            text="fan-out to 10,000: at most 0.25 x the CPU per delivered event of Starlette",
            metric="cpu_us_per_event",
            server="sseflask_service",
            reference="starlette_uvicorn",
            at_most=0.25,
        ),
        Figure(
            text="fan-out to 10,000 on Redis: at most 1.1 x the CPU per delivered event on SQLite",
            metric="cpu_us_per_event",
            server="sseflask_redis",
            reference="sseflask_service",
            at_most=1.1,
        ),
    ),
    prepare=with_log,
)
