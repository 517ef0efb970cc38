"""Flask's documented streaming, a plain generator, on gunicorn's gevent worker; no sseflask.

A subscriber is a greenlet that waits at a queue of its own. gunicorn sends no headers before the
first piece of a response, so that is a comment.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterator

from flask import Flask, Response, request
from gevent.queue import Queue
from openai import OpenAI

from benchmarks.finally_marks import leave_mark
from benchmarks.frames import FRAMES, PERIOD
from benchmarks.stack import CHANNEL_ROUTES, ROUTES, Stack, gunicorn

STACK = Stack(
    name="flask_gevent",
    title="Flask generator, gunicorn -k gevent",
    family="wsgi",
    command=gunicorn("benchmarks.servers.flask_gevent:app", "-k", "gevent"),
    packages=("flask", "werkzeug", "gunicorn", "gevent", "openai"),
    routes={
        **ROUTES,
        **{name: CHANNEL_ROUTES[name] for name in ("subscribe", "publish", "health")},
    },
)

channels: defaultdict[str, set[Queue[bytes]]] = defaultdict(set)

app = Flask(__name__)
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
def relay() -> Response:
    def events() -> Iterator[str]:
        stream = client.chat.completions.create(
            model="scripted",
            messages=[{"role": "user", "content": "你好"}],
            stream=True,
        )
        for chunk in stream:
            yield f"data: {chunk.model_dump_json()}\n\n"
        yield "data: [DONE]\n\n"

    return Response(events(), mimetype="text/event-stream")


@app.get("/silent")
def silent() -> Response:
    mark = request.args["mark"]

    def events() -> Iterator[str]:
        try:
            yield "data: 0\n\n"
            time.sleep(3600)
        finally:
            leave_mark(mark)

    return Response(events(), mimetype="text/event-stream")


@app.get("/open")
def open_stream() -> Response:
    def events() -> Iterator[str]:
        yield "data: 0\n\n"
        time.sleep(3600)

    return Response(events(), mimetype="text/event-stream")


@app.get("/counter")
def counter() -> Response:
    count = int(request.args["count"])
    interval = float(request.args["interval"])

    def events() -> Iterator[str]:
        for number in range(count):
            yield f"id: {number}\ndata: {number}\n\n"
            time.sleep(interval)

    return Response(events(), mimetype="text/event-stream")


@app.get("/subscribe/<channel>")
def subscribe(channel: str) -> Response:
    def events() -> Iterator[bytes]:
        queue: Queue[bytes] = Queue()
        channels[channel].add(queue)
        try:
            yield b": subscribed\n\n"
            while True:
                yield queue.get()
        finally:
            channels[channel].discard(queue)

    return Response(events(), mimetype="text/event-stream")


@app.post("/publish/<channel>")
def publish(channel: str) -> Response:
    frame = b"data: " + request.get_data() + b"\n\n"
    # Others may come and go while a `put` lets them.
    for queue in list(channels[channel]):
        queue.put(frame)
    return Response(status=201)


@app.get("/healthz")
def health() -> str:
    return "ok"
