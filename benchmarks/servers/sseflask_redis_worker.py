"""Flask with sseflask on its worker class, its channels on a Redis server.

`publish_loop` publishes from fifty greenlets, as many requests at a time would: one greenlet alone
waits for the server's answer to each event.
"""

from __future__ import annotations

import itertools
import os

from flask import Flask, Response, request
from gevent.pool import Pool

from benchmarks.published_events import event
from benchmarks.redis_process import NOT_STORED, URL_VARIABLE, program
from benchmarks.stack import CHANNEL_ROUTES, Stack, gunicorn
from sseflask import SSE, EventSourceResponse

_GREENLETS = 50

STACK = Stack(
    name="sseflask_redis_worker",
    title="Flask + sseflask on Redis, 50 greenlets publish",
    family="sseflask",
    command=gunicorn(
        "benchmarks.servers.sseflask_redis_worker:app",
        *("-k", "sseflask.transport.worker.StreamWorker"),
    ),
    packages=("sseflask", "flask", "werkzeug", "gunicorn", "gevent", "redis", "hiredis"),
    programs={"redis-server": (program(), "--version")},
    routes={name: CHANNEL_ROUTES[name] for name in ("subscribe", "publish", "publish_loop")},
    redis=NOT_STORED,
)

app = Flask(__name__)
app.config["SSEFLASK_STORE"] = os.environ.get(URL_VARIABLE)
sse = SSE(app)


@app.get("/subscribe/<channel>")
def subscribe(channel: str) -> EventSourceResponse:
    return sse.subscribe(channel)


@app.post("/publish/<channel>")
def publish(channel: str) -> Response:
    sse.publish(channel, request.get_data(as_text=True))
    return Response(status=201)


@app.post("/publish_loop/<channel>")
def publish_loop(channel: str) -> Response:
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
