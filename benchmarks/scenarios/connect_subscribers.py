"""Connect: the same for subscribers of a channel, whose response has begun with its headers."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from benchmarks.open_streams import SUBSCRIPTION
from benchmarks.scenario import Figure
from benchmarks.scenarios import connect
from benchmarks.subscribers import with_log

SCENARIO = replace(
    connect.SCENARIO,
    name="connect_subscribers",
    title="Connect: new subscribers of a channel",
    route="subscribe",
    servers=(
        "bare_c",
        "nchan",
        "sseflask_service",
        "sseflask_workers",
        "sseflask_worker",
        "sseflask_library_workers",
        "flask_gevent",
        "starlette_uvicorn",
        "sse_starlette",
        "fastapi_sse",
    ),
    measure=partial(connect.measure, kind=SUBSCRIPTION),
    rounds=5,
    figures=(
        Figure(
            text="connect: a subscriber at most 1.1 x the CPU of Starlette (goal 0.75)",
            metric="cpu_us_per_connect",
            server="sseflask_worker",
            reference="starlette_uvicorn",
            at_most=1.1,
        ),
        Figure(
            text="connect: a subscriber of the service at most 0.95 x the CPU of Starlette "
            "(goal 0.85)",
            metric="cpu_us_per_connect",
            server="sseflask_service",
            reference="starlette_uvicorn",
            at_most=0.95,
        ),
        Figure(
            text="connect: a subscriber, two workers at most 1.3 x the CPU of one (goal 1.15)",
            metric="cpu_us_per_connect",
            server="sseflask_library_workers",
            reference="sseflask_worker",
            at_most=1.3,
        ),
        Figure(
            text="connect: a subscriber of the service, two workers at most 1.3 x the CPU of one "
            "(goal 1.15)",
            metric="cpu_us_per_connect",
            server="sseflask_workers",
            reference="sseflask_service",
            at_most=1.3,
        ),
    ),
    prepare=with_log,
)
