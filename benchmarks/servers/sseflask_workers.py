"""The service with two workers, which read what the other one has stored."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.servers import sseflask_service

STACK = replace(
    sseflask_service.STACK,
    name="sseflask_workers",
    title="the sseflask service, two workers",
    command=(*sseflask_service.STACK.command, "--workers", "2"),
    routes={
        "subscribe": sseflask_service.STACK.routes["subscribe"],
        "publish": sseflask_service.STACK.routes["publish"],
        "publish_across": sseflask_service.STACK.routes["publish"],
    },
)
