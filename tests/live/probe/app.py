"""A Flask app made to be tested: the library's public API, and one view for each behaviour."""

from __future__ import annotations

import gc
import time

from flask import Flask, request
from flask.typing import ResponseReturnValue

from sseflask import SSE
from tests.live.probe import behaviour, faults, yields
from tests.live.probe.notes import ProbeError, counts, held, number, open_gate, page, tag

app = Flask(__name__)
SSE(app)
app.register_blueprint(behaviour.blueprint)
app.register_blueprint(yields.blueprint)
app.register_blueprint(faults.blueprint)
app.register_blueprint(page("probe.html"))


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


@app.get("/count")
def count() -> ResponseReturnValue:
    """How many pieces the generators of a tag have made."""
    return {"count": counts.get(tag(), 0)}


@app.get("/stats")
def stats() -> ResponseReturnValue:
    process = held()  # first: it collects the garbage
    generators = sum(
        getattr(thing, "__qualname__", "").startswith("short.<locals>")
        for thing in gc.get_objects()
        if type(thing).__name__ == "generator"
    )
    return {**process, "generators": generators}


@app.errorhandler(ProbeError)
def probe_error(error: ProbeError) -> ResponseReturnValue:
    """The app's own error page."""
    return {"page": "the app's own", "kind": type(error).__name__}, 418
