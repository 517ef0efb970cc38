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
        "subscribe": "/channels/{channel}",
        "publish": "/channels/{channel}",
        "publish_across": "/channels/{channel}",
    },
)
