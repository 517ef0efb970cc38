"""Runs that have been begun: attach to one, stop one."""

from __future__ import annotations

from typing import Literal

from flask import Blueprint, Response, jsonify, request
from pydantic import BaseModel

from sseflask.channels.event_frames import EARLIEST
from sseflask.completions.formats.formats import FORMATS
from sseflask.response import EventSourceResponse
from sseflask.routes.running import identify
from sseflask.routes.viewing import attach, find, not_found, nothing_left
from sseflask.runs.runs import current_runs
from sseflask.runs.viewer import RUN_ID
from sseflask.store.api import StoreError
from sseflask.store.unavailable import store_unavailable
from sseflask.web.cursor import requested_cursor
from sseflask.web.parameters import read_query

__all__ = ["blueprint"]

blueprint = Blueprint("runs", __name__)


class ViewParameters(BaseModel):
    """How a run is to be shown."""

    format: Literal["chunks", "text", "events", "ui"] = "chunks"
    heartbeat: Literal["early"] | None = None
    last_event_id: str = ""


@blueprint.get("/runs/<id>")
def view(id: str) -> Response:
    """Stream a run from the start, or from where the client is; any number may do so."""
    caller = identify(to_read=True)
    asked = read_query(ViewParameters)
    form = FORMATS[asked.format]
    cursor = requested_cursor(asked.last_event_id)
    run = find(id, caller)
    if run is None:
        # The AI SDK asks whether there is anything to resume, and takes this for no.
        if asked.format == "ui":
            return nothing_left()
        raise not_found()
    if request.method == "HEAD":
        return EventSourceResponse((), headers={**form.headers, RUN_ID: run.id})
    if cursor is not None and cursor[0] == EARLIEST:
        cursor = None
    return attach(run, form, caller, cursor, early=asked.heartbeat == "early")


@blueprint.delete("/runs/<id>")
def stop(id: str) -> Response:
    """Stop a run, wherever it is written; harmless when it has ended."""
    run = find(id, identify())
    if run is None:
        raise not_found()
    try:
        stopped = current_runs().stop(run)
    except StoreError as error:
        raise store_unavailable("run log") from error
    if stopped is None:
        raise not_found()
    response = jsonify(id=id, status=stopped.kind)
    response.headers[RUN_ID] = id
    return response
