"""The app of `sseflask_worker` with its channels on a Redis server.

`publish_loop` publishes from fifty greenlets, as many requests at a time would: one greenlet alone
waits for the server's answer to each event.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import replace

from flask import Response, request
from gevent.pool import Pool

from benchmarks.published_events import event
from benchmarks.redis_process import NOT_STORED, URL_VARIABLE, program
from benchmarks.servers import sseflask_worker
from benchmarks.servers.sseflask_worker import app, sse
from benchmarks.stack import ITEM_ROUTES, gunicorn

_GREENLETS = 50

STACK = replace(
    sseflask_worker.STACK,
    name="sseflask_redis_worker",
    title="Flask + sseflask on Redis, 50 greenlets publish",
    command=gunicorn(
        "benchmarks.servers.sseflask_redis_worker:app",
        *("-k", "sseflask.transport.worker.StreamWorker"),
    ),
    packages=(*sseflask_worker.STACK.packages, "redis", "hiredis"),
    programs={"redis-server": (program(), "--version")},
    routes={
        **{
            name: sseflask_worker.STACK.routes[name]
            for name in ("subscribe", "publish", "open", *ITEM_ROUTES)
        },
        "publish_loop": "/publish_together/{channel}?count={count}",
    },
    redis=NOT_STORED,
)

app.config["SSEFLASK_STORE"] = os.environ.get(URL_VARIABLE)


@app.post("/publish_together/<channel>")
def publish_together(channel: str) -> Response:
    count, numbers = int(request.args["count"]), itertools.count()

    def publish_some() -> None:
        with app.app_context():
            while (number := next(numbers)) < count:
                sse.publish(channel, event(number).decode())

    greenlets = Pool(_GREENLETS)
    running = [greenlets.spawn(publish_some) for _ in range(_GREENLETS)]
    for greenlet in running:
        greenlet.get()
    return Response(status=200)
