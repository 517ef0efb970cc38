"""The service on a Redis server that loses nothing it has acknowledged when it is killed."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.redis_process import EACH_WRITE_STORED
from benchmarks.servers import sseflask_redis

STACK = replace(
    sseflask_redis.STACK,
    name="sseflask_redis_stored",
    title="the sseflask service on Redis, appendfsync always",
    routes={name: sseflask_redis.STACK.routes[name] for name in ("subscribe", "publish")},
    redis=EACH_WRITE_STORED,
)
