"""The routes of runs: attach to one, stop one."""

from __future__ import annotations

from typing import Literal

from flask import Blueprint, Response, jsonify, request
from pydantic import BaseModel

from sseflask.channels.event_frames import EARLIEST
from sseflask.completions.formats import FORMATS, FormatName
from sseflask.response import EventSourceResponse
from sseflask.routes.begin_run import identify
from sseflask.routes.run_responses import attach, not_found, nothing_left
from sseflask.runs.runs import current_runs
from sseflask.runs.viewer import RUN_ID
from sseflask.web.cursor import requested_cursor
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
    format = FORMATS[parameters.format]
    cursor = requested_cursor(parameters.last_event_id)
    run = current_runs().find(id, caller.subject)
    if run is None:
        if format.absent_is_204:
            return nothing_left()
        raise not_found()
    if request.method == "HEAD":
        return EventSourceResponse((), headers={**format.headers, RUN_ID: run.id})
    if cursor is not None and cursor[0] == EARLIEST:
        cursor = None
    return attach(run, format, caller, cursor, early=parameters.heartbeat == "early")


@blueprint.delete("/runs/<id>")
def stop(id: str) -> Response:
    """Stop a run, whichever process writes it; harmless when it has ended."""
    run = current_runs().find(id, identify().subject)
    if run is None:
        raise not_found()
    stopped = current_runs().stop(run)
    if stopped is None:
        raise not_found()
    response = jsonify(id=id, status=stopped.kind)
    response.headers[RUN_ID] = id
    return response
