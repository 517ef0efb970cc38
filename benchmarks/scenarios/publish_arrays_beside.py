"""Publish: arrays of a hundred events over HTTP, from several publishers at a time."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.scenario import Figure, Options
from benchmarks.scenarios import publish_arrays

SCENARIO = replace(
    publish_arrays.SCENARIO,
    name="publish_arrays_beside",
    title="Publish: arrays of 100 events over HTTP, four publishers, each with a subscriber",
    servers=("sseflask_redis", "sseflask_service"),
    options=Options(streams=4, seconds=2),
    figures=(
        Figure(
            text="publish on Redis: at least 40,000 events/s in arrays over HTTP, all of them "
            "delivered",
            metric="events_per_second",
            server="sseflask_redis",
            at_least=40_000,
        ),
    ),
)
