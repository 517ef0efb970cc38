"""Responses that show a run: from the start, or from where the client is."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from flask import Response, request

from sseflask.auth.tokens import Caller
from sseflask.completions.dialects import DOCUMENT_LABEL
from sseflask.completions.formats import DOCUMENT
from sseflask.errors import Failure
from sseflask.logs.request_ids import HEADER, is_given
from sseflask.response import EventSourceResponse
from sseflask.runs.format_api import Format, id_of
from sseflask.runs.runs import current_runs
from sseflask.runs.viewer import RUN_ID, Viewer
from sseflask.store.run_api import Run
from sseflask.web.parameters import REPLAYED, invalid
from sseflask.web.refusals import is_event_source

#: The response header with the upstream's request id.
UPSTREAM_ID = "X-Upstream-Request-Id"

#: Seconds that a client may have to wait for a document: the upstream's own limit is shorter.
DOCUMENT_SECONDS = 1e7

_ID = re.compile(r"([0-9a-f]{32})\.(0|[1-9][0-9]{0,29})\Z", re.ASCII)


def not_found(param: str | None = None) -> Failure:
    """The 404 for a run that does not exist, or is another caller's: it does not say which."""
    return invalid(
        "There is no such run: it was never yours, or it ended so long ago that it is forgotten.",
        status=404,
        param=param,
        code="run_not_found",
    )


def attach(
    run: Run, format: Format, caller: Caller, cursor: tuple[str, str] | None, *, early: bool = False
) -> Response:
    """Show a run from where the client is.

    Args:
        run: one of the caller's.
        cursor: the last event id and the name of what carried it, ``None`` for the start. If a
            client can't resume after any event it is ignored, unless the event is the last one.
        early: whether headers go at once.
    """
    if run.label == DOCUMENT_LABEL:
        viewer = current_runs().view(run, DOCUMENT)
        viewer.complete_headers = headers_with({})
        return document(viewer, caller)
    if cursor is not None and run.ended is not None and cursor[0] == id_of(run.id, run.ended):
        return nothing_left(run.id)
    # A client that begins at the start in any case may present any id.
    after = _number_in(run, cursor) if cursor is not None and format.resumable else 0
    announce = is_event_source(request)
    viewer = current_runs().view(run, format, after, announce=announce, early=early)
    viewer.complete_headers = headers_with({})
    # The run exists, whatever becomes of it: nothing is gained by holding the headers back.
    return stream(viewer, format, caller, first_byte=0)


def _number_in(run: Run, cursor: tuple[str, str]) -> int:
    """The number of the last event that the client has; raises 400 if the run has no such event."""
    id, after = read_cursor(cursor)
    if id != run.id:
        raise _bad_cursor(cursor[1])
    newest = run.ended or run.last
    if after > newest:
        raise invalid(
            f"The run has come to event {newest} only, not to {after}: present an id that it has "
            "sent.",
            param=cursor[1],
        )
    return after


def read_cursor(cursor: tuple[str, str]) -> tuple[str, int]:
    """The run's id and the number in an event's id; raises 400 for what is no such id."""
    presented, param = cursor
    found = _ID.match(presented)
    if not found:
        raise _bad_cursor(param)
    return found[1], int(found[2])


def _bad_cursor(param: str) -> Failure:
    return invalid(
        f"The {param} must be the id of an event of a run, such as "
        "4f0c6d8e2b9a417c8d3e5f60718293a4.17, or earliest.",
        param=param,
    )


def stream(
    viewer: Viewer,
    format: Format,
    caller: Caller,
    *,
    repeated: bool = False,
    first_byte: float | None = None,
    heartbeat: float | None = None,
) -> EventSourceResponse:
    """Stream what a viewer gives.

    Args:
        viewer: not advanced yet.
        caller: the stream ends when its token does.
        repeated: the run was begun before, with the same key.
        first_byte: seconds that the headers wait for the first bytes; by default the service's.
        heartbeat: seconds of silence before a heartbeat; by default the service's.
    """
    if repeated:
        viewer.headers[REPLAYED] = "true"
    return EventSourceResponse(
        viewer,
        headers={**format.headers, **viewer.headers},
        first_byte=first_byte,
        heartbeat=heartbeat,
        lifetime=None if viewer.can_reconnect else 0,
        expires_at=caller.expires,
        failure_event=format.failure_event(viewer.run.label),
    )


def document(viewer: Viewer, caller: Caller, *, repeated: bool = False) -> Response:
    """Give one JSON document, once it is complete; a client that leaves before is noticed."""
    seconds = DOCUMENT_SECONDS
    response = stream(
        viewer, DOCUMENT, caller, repeated=repeated, first_byte=seconds, heartbeat=seconds
    )
    response.mimetype = "application/json"
    return response


def headers_with(upstream: Mapping[str, str]) -> Callable[[Mapping[str, str]], dict[str, str]]:
    """Return what completes the headers of the current request's response, see `Viewer`.

    The upstream's request id gets a name that nobody else uses; it gets the usual name too unless
    the request brought an id of its own. ``upstream`` is filled before they are needed.
    """
    keeps_own = is_given(request.environ)

    def complete(headers: Mapping[str, str]) -> dict[str, str]:
        completed = {**upstream, **headers}
        if (id := completed.get(HEADER)) is not None:
            completed[UPSTREAM_ID] = id
            if keeps_own:
                del completed[HEADER]
        return completed

    return complete


def nothing_left(run: str | None = None) -> Response:
    """The 204 that an EventSource takes for the end; not to be stored."""
    response = Response(status=204, headers={RUN_ID: run} if run else {})
    response.cache_control.no_store = True
    return response
