"""An application with channels of its own: the library's public API, on any WSGI server."""

# ruff: noqa: E402  # other modules make their locks when they are imported
from __future__ import annotations

import os

from tests.switches import watch_switches

switches = watch_switches() if "PROBE_SWITCHES" in os.environ else []

from flask import Flask, request
from flask.typing import ResponseReturnValue

from sseflask import SSE
from tests.live.kit.notes import held, mark, page, tag

app = Flask(__name__)
app.config["SSEFLASK_CHANNEL_LOG"] = os.environ["SSEFLASK_CHANNEL_LOG"]
app.config["SSEFLASK_STORE"] = os.environ.get("REDIS_URL")
if "PROBE_HEARTBEAT" in os.environ:
    app.config["SSEFLASK_HEARTBEAT"] = float(os.environ["PROBE_HEARTBEAT"])
sse = SSE(app)
app.register_blueprint(page("probe.html"))


@app.get("/hello")
def hello() -> ResponseReturnValue:
    return {"message": "hello"}


@app.post("/publish/<channel>")
def publish(channel: str) -> ResponseReturnValue:
    """The body is the data."""
    event_id = sse.publish(
        channel,
        request.get_data(as_text=True),
        event=request.args.get("event"),
        retry=request.args.get("retry", type=int),
    )
    return {"id": event_id}, 201


@app.get("/subscribe")
def subscribe() -> ResponseReturnValue:
    """Subscribe to each `c`; the client's cursor is noted under the tag."""
    mark(tag(), request.headers.get("Last-Event-ID", "none"))
    return sse.subscribe(
        *request.args.getlist("c"),
        since=request.args.get("since"),
        until=request.args.getlist("until") or None,
    )


@app.post("/close/<channel>")
def close(channel: str) -> ResponseReturnValue:
    sse.close(channel)
    return "", 204


@app.get("/subscribers/<channel>")
def subscribers(channel: str) -> ResponseReturnValue:
    return str(sse.subscribers(channel))


@app.get("/history/<channel>")
def history(channel: str) -> ResponseReturnValue:
    """The ids, and from where to go on."""
    found = sse.history(channel)
    return {"ids": [event.id for event in found.events], "cursor": found.cursor}


@app.get("/switches")
def switched() -> ResponseReturnValue:
    """The places at which the loop's thread switched while it held a native lock."""
    return {"switches": switches}


@app.get("/stats")
def stats() -> ResponseReturnValue:
    return {**held()}
