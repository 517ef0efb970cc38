"""Idle: what a subscriber costs a worker that has 10,000 of them, beyond the kernel's socket."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from benchmarks.open_streams import SUBSCRIPTION
from benchmarks.scenario import Figure, Options
from benchmarks.scenarios import idle
from benchmarks.subscribers import with_log

SCENARIO = replace(
    idle.SCENARIO,
    name="idle_subscribers",
    title="Idle: 10,000 subscribers of a channel, nothing published",
    route="subscribe",
    servers=(
        "bare_c",
        "nchan",
        "sseflask_service",
        "sseflask_redis",
        "flask_gevent",
        "starlette_uvicorn",
    ),
    measure=partial(idle.measure, kind=SUBSCRIPTION),
    options=Options(streams=10_000, seconds=2, patience=20),
    figures=(
        Figure(
            text="idle: at most 0.5 KiB of memory for a subscriber, of 10,000",
            metric="kib_per_stream",
            server="sseflask_service",
            at_most=0.5,
        ),
        Figure(
            text="idle on Redis: at most 1.1 x the memory for a subscriber on SQLite, of 10,000",
            metric="kib_per_stream",
            server="sseflask_redis",
            reference="sseflask_service",
            at_most=1.1,
        ),
    ),
    prepare=with_log,
)
