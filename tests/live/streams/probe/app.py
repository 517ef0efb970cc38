"""A Flask app made to be tested: the library's public API, and one view for each behaviour."""

from __future__ import annotations

import gc
import time
from types import MethodType

from flask import Flask, request
from flask.typing import ResponseReturnValue

from sseflask import SSE
from sseflask.transport.gunicorn.drain import worker_drain
from tests.live.kit.notes import ProbeError, counts, held, number, open_gate, page, tag
from tests.live.streams.probe import accounts, behaviour, faults, yields

app = Flask(__name__)
SSE(app)
app.register_blueprint(accounts.blueprint)
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


def is_ours(thing: object) -> bool:
    return type(thing).__module__.startswith("sseflask.")


def reachable(stream: object) -> dict[int, object]:
    """Our objects that a stream holds, and what holds them."""
    seen: dict[int, object] = {}
    found = [stream]
    while found:
        thing = found.pop()
        if id(thing) not in seen and (is_ours(thing) or isinstance(thing, (tuple, MethodType))):
            seen[id(thing)] = thing
            found += gc.get_referents(thing)
    return seen


@app.get("/waiting")
def waiting() -> ResponseReturnValue:
    """Of the stream of a tag: our calls on its stack, and the kinds of our objects that it alone
    holds, the last of them those with a dictionary."""
    # No public name: what a stream costs is for the tests alone.
    (stream,) = (
        each for each in worker_drain._live if each.environ["QUERY_STRING"] == f"tag={tag()}"
    )
    others = {id for each in worker_drain._live if each is not stream for id in reachable(each)}
    frame, calls = stream._sender.greenlet.greenlet.gr_frame, []
    while frame is not None:
        if frame.f_globals["__name__"].startswith("sseflask."):
            calls.append(frame.f_code.co_name)
        frame = frame.f_back
    own = [thing for id, thing in reachable(stream).items() if id not in others and is_ours(thing)]
    return {
        "calls": calls,
        "objects": sorted(type(thing).__name__ for thing in own),
        "dictionaries": sorted(type(thing).__name__ for thing in own if hasattr(thing, "__dict__")),
    }


@app.errorhandler(ProbeError)
def probe_error(error: ProbeError) -> ResponseReturnValue:
    """The app's own error page."""
    return {"page": "the app's own", "kind": type(error).__name__}, 418
