"""Fan-out to a tenth of the subscribers, which the slower stacks can do as well."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.scenarios import fanout

SCENARIO = replace(
    fanout.SCENARIO,
    name="fanout_1000",
    title="Fan-out: one event to 1,000 subscribers of one worker",
    servers=(
        *fanout.SCENARIO.servers,
        "sseflask_worker",
        "sseflask_gevent",
        "sse_starlette",
        "fastapi_sse",
    ),
    options=replace(fanout.SCENARIO.options, streams=1000, seconds=2),
    figures=(),
)
