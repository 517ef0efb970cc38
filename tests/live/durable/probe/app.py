"""The application: a generator is run by its name; its run is viewed, stopped and asked for."""

from __future__ import annotations

import logging
import os
import threading
from typing import Any
from urllib.parse import parse_qsl

import click
from flask import Flask, request
from flask.typing import ResponseReturnValue

from sseflask import SSE, EventSourceResponse
from tests.live.durable.probe import contexts
from tests.live.durable.probe.api import CURSOR, RESUME, data_of, parameters, summary_of
from tests.live.durable.probe.emitting import EMITTING
from tests.live.durable.probe.generators import GENERATORS, Asked, Made, from_the_start, go_on
from tests.live.kit.notes import ProbeError, held, mark, page

#: Tests read there which worker has gone on with what.
logging.getLogger("sseflask").addHandler(logging.StreamHandler())
logging.getLogger("sseflask").setLevel(logging.INFO)

app = Flask("probe")
app.secret_key = "a secret of the tests"
app.config["SSEFLASK_HEARTBEAT"] = 1.0
#: All clients of a test have one address.
app.config["SSEFLASK_MAX_RUNS"] = 1000
#: Generators that wait for the test must not make it wait for a second.
app.config["SSEFLASK_FIRST_BYTE"] = 0.3
_place = os.environ["PROBE_RUNS"]
app.config["SSEFLASK_STORE" if "://" in _place else "SSEFLASK_RUN_LOG"] = _place
#: Without types: the tests are older than the API.
sse: Any = SSE(app)
app.register_blueprint(contexts.blueprint)
app.teardown_appcontext(contexts.close_resource)
app.register_blueprint(page("durable.html"))


@app.get("/healthz")
def healthz() -> ResponseReturnValue:
    return {"message": "healthy"}


@app.get("/hello")
def hello() -> ResponseReturnValue:
    return {"message": "hello"}


@app.errorhandler(TypeError)
@app.errorhandler(ValueError)
def mistake(error: Exception) -> ResponseReturnValue:
    """What a view has done wrong: the test asks for it, and no traceback is logged."""
    return {"mistake": f"{type(error).__name__}: {error}"}, 500


@app.get("/held")
def holds() -> ResponseReturnValue:
    """What this process holds; it collects its garbage first."""
    return held()


def _asked_of(tag: str) -> Asked:
    """A tag that has all that a generator needs to go on elsewhere: ``name.count[.gated]``."""
    _, _, rest = tag.partition("--")
    count, _, gated = rest.partition("-")
    return {"tag": tag, "count": count, **({"gated": "1"} if gated else {})}


def resume(run_id: str, last_item: Any) -> Made:
    """Goes on in another worker with what the items say."""
    data = data_of(last_item)
    if data is None:
        mark("resumed", f"{run_id} {os.getpid()}")
        return from_the_start()
    tag = str(data).split(":")[0]
    mark(f"{tag}.resume", f"{run_id} {os.getpid()}")
    return go_on(_asked_of(tag), data)


def resume_and_raise(run_id: str, last_item: Any) -> Made:
    """Can't go on."""
    mark(f"{str(data_of(last_item)).split(':')[0]}.resume", f"{run_id} {os.getpid()}")
    raise ProbeError("secret detail of resume")


RESUMING = {"again": resume, "raising": resume_and_raise}


def _what(name: str, asked: Asked) -> Any:
    if name in EMITTING:
        return EMITTING[name](asked)
    made = GENERATORS[name](asked)
    return (lambda: made) if "call" in asked else made


def _how(asked: Asked) -> dict[str, Any]:
    found = parameters(asked)
    if "resume" in asked:
        found[RESUME] = RESUMING[asked["resume"]]
    return found


@app.route("/run/<name>", methods=["GET", "POST"])
def run(name: str) -> ResponseReturnValue:
    asked = request.args.to_dict()
    response: ResponseReturnValue = sse.run(_what(name, asked), **_how(asked))
    return response


@app.get("/plain/<name>")
def plain(name: str) -> ResponseReturnValue:
    """The same generator without a run: what its events have to be."""
    return EventSourceResponse(GENERATORS[name](request.args.to_dict()))


@app.get("/attach/<run_id>")
def attach(run_id: str) -> ResponseReturnValue:
    keywords: dict[str, Any] = {
        name: request.args[asked]
        for asked, name in (("owner", "owner"), ("after", CURSOR))
        if asked in request.args
    }
    if "owner_number" in request.args:
        keywords["owner"] = request.args.get("owner_number", type=int)
    response: ResponseReturnValue = sse.attach(run_id, **keywords)
    return response


def _owner() -> dict[str, Any]:
    return {"owner": request.args["owner"]} if "owner" in request.args else {}


@app.delete("/runs/<run_id>")
def stop(run_id: str) -> ResponseReturnValue:
    return {"state": sse.stop(run_id, **_owner())}


@app.get("/result/<run_id>")
def result(run_id: str) -> ResponseReturnValue:
    return summary_of(sse.result(run_id, **_owner()))


@app.post("/start/<name>")
def start(name: str) -> ResponseReturnValue:
    asked = request.args.to_dict()
    return {"run": sse.start(_what(name, asked), **_how(asked))}


@app.post("/start-in-thread/<name>")
def start_in_thread(name: str) -> ResponseReturnValue:
    """By a thread, under gevent a greenlet, without any context."""
    asked, found = request.args.to_dict(), []

    def begin() -> None:
        found.append(sse.start(_what(name, asked), **_how(asked)))

    thread = threading.Thread(target=begin)
    thread.start()
    thread.join()
    return {"run": found[0]}


@app.cli.command("begin")
@click.argument("name")
@click.argument("query")
def begin(name: str, query: str) -> None:
    """Start a run; its id is printed at once."""
    asked = dict(parse_qsl(query, keep_blank_values=True))
    click.echo(sse.start(_what(name, asked), **_how(asked)))


@app.cli.command("ask")
@click.argument("run_id")
def ask(run_id: str) -> None:
    """Print the state of a run that another process writes."""
    click.echo(sse.result(run_id).state)


@app.cli.command("end")
@click.argument("run_id")
def end(run_id: str) -> None:
    """Stop a run that another process writes."""
    click.echo(sse.stop(run_id))
