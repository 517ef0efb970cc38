"""The service in development mode, with a page of its own that reads a run."""

from __future__ import annotations

from pathlib import Path

from flask import Response, request
from flask.typing import ResponseReturnValue

from sseflask.app import create_app
from tests.live.probe.notes import mark, tag

app = create_app(development=True)


@app.get("/page")
def page() -> ResponseReturnValue:
    """A page for a browser; what it posts to `/note` is noted under its tag."""
    return Response(
        (Path(__file__).parents[1] / "pages" / "run.html").read_bytes(), mimetype="text/html"
    )


@app.post("/note")
def note() -> ResponseReturnValue:
    mark(tag(), request.get_data(as_text=True))
    return "", 204
