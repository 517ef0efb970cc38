"""An application with channels of its own: the library's public API, on any WSGI server."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

from flask import Flask, Response, request
from flask.typing import ResponseReturnValue

from sseflask import SSE
from tests.live.probe.notes import mark, tag

app = Flask(__name__)
app.config["SSEFLASK_CHANNEL_LOG"] = os.environ["PROBE_CHANNEL_LOG"]
if "PROBE_HEARTBEAT" in os.environ:
    app.config["SSEFLASK_HEARTBEAT"] = float(os.environ["PROBE_HEARTBEAT"])
sse = SSE(app)


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
    """To each `c`; what the client resumes from is noted under the tag."""
    mark(tag(), request.headers.get("Last-Event-ID", "none"))
    return sse.subscribe(*request.args.getlist("c"))


@app.get("/page")
def page() -> ResponseReturnValue:
    """A page for a browser; what it posts to `/note` is noted under its tag."""
    return Response(
        (Path(__file__).parents[1] / "pages" / "probe.html").read_bytes(), mimetype="text/html"
    )


@app.post("/note")
def note() -> ResponseReturnValue:
    mark(tag(), request.get_data(as_text=True))
    return "", 204


@app.get("/stats")
def stats() -> ResponseReturnValue:
    """What this process holds."""
    gc.collect()
    greenlet = sys.modules.get("greenlet")
    greenlets = [
        thing for thing in gc.get_objects() if greenlet and isinstance(thing, greenlet.greenlet)
    ]
    return {
        "pid": os.getpid(),
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "threads": len(list(Path("/proc/self/task").iterdir())),
        "greenlets": sum(not thing.dead for thing in greenlets),
    }
