"""Connect: the same for subscribers of a channel, whose response has begun with its headers."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from benchmarks.open_streams import SUBSCRIPTION
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
    prepare=with_log,
)
