"""Flask with sseflask where every event is an `Event` with an id, encoded as it is yielded."""

from __future__ import annotations

import time
from collections.abc import Iterator

from flask import Flask, request

from benchmarks.stack import ROUTES, Stack, gunicorn
from sseflask import Event, EventSourceResponse

STACK = Stack(
    name="sseflask_events",
    title="Flask + sseflask, Event objects, gunicorn -k StreamWorker",
    family="sseflask",
    command=gunicorn(
        "benchmarks.servers.sseflask_events:app",
        "-k",
        "sseflask.transport.worker.StreamWorker",
    ),
    packages=("sseflask", "flask", "werkzeug", "gunicorn", "gevent"),
    routes={name: ROUTES[name] for name in ("flood", "tick")},
)

app = Flask(__name__)


@app.get("/flood")
def flood() -> EventSourceResponse:
    count = int(request.args["count"])

    def events() -> Iterator[Event]:
        for number in range(count):
            yield Event(f"flood {number % 10_000:010d}", id=number)

    return EventSourceResponse(events())


@app.get("/tick")
def tick() -> EventSourceResponse:
    count = int(request.args["count"])
    rate = float(request.args["rate"])

    def events() -> Iterator[Event]:
        for number in range(count):
            time.sleep(1 / rate)
            yield Event(str(number), id=number)

    return EventSourceResponse(events())
