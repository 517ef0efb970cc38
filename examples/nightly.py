"""A report that cron or a request begins, and that goes on in another worker if its own dies.

Run it:

    gunicorn examples.nightly:app -c python:sseflask.gunicorn_conf -w 2

    curl -X POST http://127.0.0.1:8000/reports
    curl -N http://127.0.0.1:8000/reports/<what the first printed>
    curl -X DELETE http://127.0.0.1:8000/reports/<the same>

Or from cron, for curl and pages to follow as well. It prints the id at once:

    flask --app examples/nightly.py nightly
"""

import time
from collections.abc import Generator
from pathlib import Path
from typing import Any, TypeAlias

from flask import Flask, Response, url_for
from flask.typing import ResponseReturnValue

from sseflask import SSE, RunEvent

app = Flask(__name__)
# cron starts in another folder than the server, and both have to use one file.
app.config["SSEFLASK_RUN_LOG"] = str(Path(__file__).resolve().parent / "instance" / "runs.sqlite3")
sse = SSE(app)

PAGES = 20
Pages: TypeAlias = Generator[dict[str, int], None, dict[str, Any]]


def write(first: int = 1) -> Pages:
    for number in range(first, PAGES + 1):
        time.sleep(0.2)  # a model is asked, a query runs
        yield {"page": number, "of": PAGES}
    return {"pages": PAGES}  # the result of the run


def go_on(_run: str, last: RunEvent | None) -> Pages:
    """Another worker goes on: after a deploy, or when the first one has died."""
    return write(last.json()["page"] + 1 if last else 1)


@app.post("/reports")
def begin() -> ResponseReturnValue:
    # With a login: owner=current_user.id, here and below. So only its owner reads and stops it.
    run = sse.start(write(), resume=go_on)
    return {"report": url_for("follow", run=run)}, 202


@app.get("/reports/<run>")
def follow(run: str) -> Response:
    return sse.attach(run)


@app.delete("/reports/<run>")
def stop(run: str) -> ResponseReturnValue:
    return {"state": sse.stop(run)}


@app.get("/healthz")
def healthz() -> str:
    return "ok"


@app.cli.command("nightly")
def nightly() -> None:
    # The process ends with its run. Workers know this file as another module, so none goes on.
    print(sse.start(write()), flush=True)
