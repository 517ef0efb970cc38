"""The service with everything on a Redis server, as where there are several machines."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.redis_process import NOT_STORED, program
from benchmarks.servers import sseflask_service

STACK = replace(
    sseflask_service.STACK,
    name="sseflask_redis",
    title="the sseflask service on Redis",
    packages=(*sseflask_service.STACK.packages, "redis", "hiredis"),
    programs={"redis-server": (program(), "--version")},
    redis=NOT_STORED,
)
