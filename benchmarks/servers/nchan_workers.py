"""The same nginx with two worker processes, which hand each other what is published."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.servers import nchan

STACK = replace(
    nchan.STACK,
    name="nchan_workers",
    title="nginx nchan (C), two workers",
    command=(*nchan.STACK.command[:-1], "2"),
    routes={
        "subscribe": nchan.STACK.routes["subscribe"],
        "publish": nchan.STACK.routes["publish"],
        "publish_across": nchan.STACK.routes["publish"],
    },
)
