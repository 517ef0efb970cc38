"""Flask with sseflask on its worker class: plain generators upgraded, and EventSourceResponse."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from flask import Flask, Response, request
from openai import OpenAI

from benchmarks.finally_marks import leave_mark
from benchmarks.frames import FRAMES, PERIOD
from benchmarks.published_events import LOG_VARIABLE, RUN_LOG_VARIABLE, event
from benchmarks.stack import CHANNEL_ROUTES, ITEM_ROUTES, ROUTES, Stack, gunicorn
from sseflask import SSE, Event, EventSourceResponse

STACK = Stack(
    name="sseflask_worker",
    title="Flask + sseflask, gunicorn -k StreamWorker",
    family="sseflask",
    command=gunicorn(
        "benchmarks.servers.sseflask_worker:app",
        "-k",
        "sseflask.transport.worker.StreamWorker",
    ),
    packages=("sseflask", "flask", "werkzeug", "gunicorn", "gevent", "openai"),
    environment={LOG_VARIABLE: ":memory:", RUN_LOG_VARIABLE: ":memory:"},
    routes={
        **ROUTES,
        **ITEM_ROUTES,
        **{
            name: CHANNEL_ROUTES[name]
            for name in ("subscribe", "resume", "publish", "publish_loop", "health")
        },
    },
)

app = Flask(__name__)
app.config["SSEFLASK_CHANNEL_LOG"] = os.environ.get(LOG_VARIABLE)
app.config["SSEFLASK_RUN_LOG"] = os.environ.get(RUN_LOG_VARIABLE)
app.config["SSEFLASK_MAX_RUNS"] = 15_000  # all are the load client's
sse = SSE(app)
client = OpenAI(
    base_url=os.environ.get("OPENAI_BASE_URL"),
    api_key=os.environ.get("OPENAI_API_KEY", "none"),
)


@app.get("/flood")
def flood() -> Response:
    count = int(request.args["count"])

    def events() -> Iterator[bytes]:
        for number in range(count):
            yield FRAMES[number % PERIOD]

    return Response(events(), mimetype="text/event-stream")


@app.get("/tick")
def tick() -> Response:
    count = int(request.args["count"])
    rate = float(request.args["rate"])

    def events() -> Iterator[str]:
        for number in range(count):
            time.sleep(1 / rate)
            yield f"data: {number}\n\n"

    return Response(events(), mimetype="text/event-stream")


@app.get("/relay")
def relay() -> EventSourceResponse:
    def events() -> Iterator[bytes]:
        with client.chat.completions.with_streaming_response.create(
            model="scripted",
            messages=[{"role": "user", "content": "你好"}],
            stream=True,
        ) as response:
            yield from response.iter_bytes()

    return EventSourceResponse(events())


@app.get("/silent")
def silent() -> EventSourceResponse:
    mark = request.args["mark"]

    def events() -> Iterator[str]:
        try:
            yield "0"
            time.sleep(3600)
        finally:
            leave_mark(mark)

    return EventSourceResponse(events())


@app.get("/open")
def open_stream() -> EventSourceResponse:
    def events() -> Iterator[str]:
        yield "0"
        time.sleep(3600)

    return EventSourceResponse(events())


@app.get("/counter")
def counter() -> EventSourceResponse:
    count = int(request.args["count"])
    interval = float(request.args["interval"])

    def events() -> Iterator[Event]:
        for number in range(count):
            yield Event(str(number), id=number)
            time.sleep(interval)

    return EventSourceResponse(events())


def _items() -> Iterator[str]:
    rate, count = float(request.args["rate"]), int(request.args["count"])
    size = int(request.args["size"])
    for number in range(count):
        time.sleep(1 / rate)
        yield str(number).ljust(size)


@app.get("/items")
def items() -> EventSourceResponse:
    return EventSourceResponse(_items())


@app.get("/stored_items")
def stored_items() -> Response:
    return sse.run(_items())


@app.get("/stored_items/<run>")
def view_items(run: str) -> Response:
    return sse.attach(run)


@app.get("/stored_open")
def stored_open() -> Response:
    def events() -> Iterator[str]:
        yield "0"
        time.sleep(3600)

    return sse.run(events(), on_disconnect="cancel")


@app.get("/subscribe/<channel>")
def subscribe(channel: str) -> EventSourceResponse:
    return sse.subscribe(channel)


@app.post("/publish/<channel>")
def publish(channel: str) -> Response:
    sse.publish(channel, request.get_data(as_text=True))
    return Response(status=201)


@app.post("/publish_loop/<channel>")
def publish_loop(channel: str) -> Response:
    for number in range(int(request.args["count"])):
        sse.publish(channel, event(number).decode())
    return Response(status=200)


@app.get("/healthz")
def health() -> str:
    return "ok"
