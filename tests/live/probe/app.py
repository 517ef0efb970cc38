"""A Flask app made to be tested: the library's public API, and one view for each behaviour."""

from __future__ import annotations

import gc
import os
import sys
import time
from pathlib import Path

from flask import Flask, Response, request
from flask.typing import ResponseReturnValue

from sseflask import SSE
from tests.live.probe import behaviour, faults, yields
from tests.live.probe.notes import ProbeError, counts, mark, number, open_gate, tag

app = Flask(__name__)
SSE(app)
app.register_blueprint(behaviour.blueprint)
app.register_blueprint(yields.blueprint)
app.register_blueprint(faults.blueprint)


@app.post("/wake")
def wake() -> ResponseReturnValue:
    """Called by a test so that a generator goes on."""
    return {"woken": open_gate(tag())}


@app.get("/hello")
def hello() -> ResponseReturnValue:
    return {"message": "hello", "query": request.args.get("q", "")}


@app.get("/pause")
def pause() -> ResponseReturnValue:
    """An ordinary request that takes a while."""
    time.sleep(number("seconds", 0.05))
    return {"message": "paused", "query": request.args.get("q", "")}


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


@app.get("/count")
def count() -> ResponseReturnValue:
    """How many pieces the generators of a tag have made."""
    return {"count": counts.get(tag(), 0)}


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
        "generators": sum(
            getattr(thing, "__qualname__", "").startswith("short.<locals>")
            for thing in gc.get_objects()
            if type(thing).__name__ == "generator"
        ),
    }


@app.errorhandler(ProbeError)
def probe_error(error: ProbeError) -> ResponseReturnValue:
    """The app's own error page."""
    return {"page": "the app's own", "kind": type(error).__name__}, 418
