"""The routes of runs: attach to one, stop one."""

from __future__ import annotations

from typing import Literal

from flask import Blueprint, Response, jsonify
from pydantic import BaseModel

from sseflask.completions.formats import FormatName
from sseflask.extension import current_sse
from sseflask.routes.begin_run import identify
from sseflask.runs.viewer import RUN_ID
from sseflask.web.parameters import read_query

blueprint = Blueprint("runs", __name__)


class ViewParameters(BaseModel):
    """The parameters of a response that shows a run."""

    format: FormatName = "chunks"
    heartbeat: Literal["early"] | None = None
    last_event_id: str = ""


@blueprint.get("/runs/<id>")
def view(id: str) -> Response:
    """Stream a run from the start, or from where the client is. Any number of clients may."""
    caller = identify(to_read=True)
    parameters = read_query(ViewParameters)
    return current_sse().attach(
        id,
        owner=caller.subject or None,
        format=parameters.format,
        last_event_id=parameters.last_event_id,
        first_byte=0 if parameters.heartbeat == "early" else None,
        expires_at=caller.expires,
    )


@blueprint.delete("/runs/<id>")
def stop(id: str) -> Response:
    """Stop a run, whichever process writes it; harmless when it has ended."""
    state = current_sse().stop(id, owner=identify().subject or None)
    response = jsonify(id=id, status="failed" if state == "interrupted" else state)
    response.headers[RUN_ID] = id
    return response
