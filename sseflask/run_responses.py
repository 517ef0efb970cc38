"""Responses that show a run: from the start, or from where the client is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from flask import Response, request
from werkzeug.datastructures import Headers

from sseflask.channels.event_frames import EARLIEST
from sseflask.errors import Failure, invalid
from sseflask.flask_context import current_request
from sseflask.response import EventSourceResponse, check_times
from sseflask.runs.format_api import Format, id_of
from sseflask.runs.kinds import Kind
from sseflask.runs.viewer import RUN_ID, Viewer
from sseflask.store.run_api import Run
from sseflask.web.cursor import queried_cursor, requested_cursor
from sseflask.web.idempotency import REPLAYED

#: Seconds that a client may have to wait for a document: its generator's own limits are shorter.
DOCUMENT_SECONDS = 1e7

#: Where a request's environment has the viewers that were made for it.
_VIEWERS = "sseflask.viewers"

_ID = re.compile(r"([0-9a-f]{32})\.(0|[1-9][0-9]{0,29})\Z", re.ASCII)


@dataclass(frozen=True)
class Sending:
    """How a response sends its events; as for `EventSourceResponse`."""

    heartbeat: float | None = None
    first_byte: float | None = None
    lifetime: float | None = None
    expires_at: float | None = None
    headers: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        # Before anything is run.
        check_times(self.heartbeat, self.first_byte, self.lifetime)
        try:
            Headers(self.headers)
        except ValueError as error:
            raise ValueError(f"headers can't be sent: {error}") from None

    @property
    def early(self) -> bool:
        """Whether the client gets something at once, whenever the first event comes."""
        return self.first_byte == 0


def format_of(kind: Kind, name: str | None) -> Format:
    """The format of a name, or the kind's own; ValueError if the kind has none of that name."""
    if name is None:
        return next(iter(kind.formats.values()))
    try:
        return kind.formats[name]
    except KeyError:
        raise ValueError(
            f"format must be one of {', '.join(kind.formats)} for this run, not {name!r:.80}"
        ) from None


def viewed_format(kind: Kind, name: str | None) -> Format:
    """The same for a run that is there: if its kind has one format, any name stands for it."""
    return format_of(kind, None if len(kind.formats) == 1 else name)


def not_found(param: str | None = None) -> Failure:
    """The 404 for a run that does not exist, or is another owner's: it does not say which."""
    return invalid(
        "There is no such run: it was never yours, or it ended so long ago that it is forgotten.",
        status=404,
        param=param,
        code="run_not_found",
    )


def begins_nothing() -> bool:
    """Whether the current request is a guess, a browser's prefetch, and must not begin a run."""
    purposes = (request.headers.get("Sec-Purpose", ""), request.headers.get("Purpose", ""))
    return any("prefetch" in purpose.lower() for purpose in purposes)


def nothing_left(run: str | None = None) -> Response:
    """The 204 that an EventSource takes for the end; not to be stored."""
    response = Response(status=204, headers={RUN_ID: run} if run else {})
    response.cache_control.no_store = True
    return response


def head(format: Format, sending: Sending, run: str | None = None) -> Response:
    """The answer to HEAD."""
    named = {RUN_ID: run} if run else {}
    return EventSourceResponse((), headers={**(sending.headers or {}), **format.headers, **named})


def cursor_of_client(given: str | None) -> tuple[str, str] | None:
    """The current request's cursor and the name of what has it; ``None`` for the start.

    Raises ValueError if what is given is no text.

    Args:
        given: from the request's parameters; ``None`` if it is to be looked for in the query.
    """
    if given is not None and not isinstance(given, str):
        raise ValueError(f"last_event_id must be a text or None, not {given!r:.80}")
    cursor = requested_cursor(queried_cursor(current_request()) if given is None else given)
    return None if cursor is None or cursor[0] == EARLIEST else cursor


def number_after(run: Run, format: Format, cursor: tuple[str, str] | None) -> int | None:
    """The number of the last event that the client has; ``None`` if it has the last of all.

    Raises:
        Failure: 400, the run has no such event.
    """
    if cursor is not None and run.ended is not None and cursor[0] == id_of(run.id, run.ended):
        return None
    # A client that begins at the start in any case may present any id.
    if cursor is None or not format.resumable:
        return 0
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
        f"4f0c6d8e2b9a417c8d3e5f60718293a4.17, or {EARLIEST}.",
        param=param,
    )


def leave_unsent(response: Response) -> None:
    """Let the current request's viewers leave whose responses are not its response.

    The view has raised an error, for instance, or an ``after_request`` function has made another
    response.
    """
    sent: object = response.response
    for viewer in current_request().environ.pop(_VIEWERS, ()):
        if viewer is not sent:
            viewer.abandon()


def stream(
    viewer: Viewer, format: Format, sending: Sending, *, repeated: bool = False
) -> EventSourceResponse:
    """Send what a viewer gives, which is not advanced yet. Blocks until it is attached.

    Args:
        repeated: the run was begun before, with the same key.

    Raises:
        Failure: 503, the store can't do it now.
    """
    request.environ.setdefault(_VIEWERS, []).append(viewer)
    if repeated:
        viewer.headers[REPLAYED] = "true"
    lifetime, heartbeat, first_byte = sending.lifetime, sending.heartbeat, sending.first_byte
    if not viewer.can_reconnect:
        lifetime = 0
    if format.document:
        # Nothing but the document, once it is complete; a client that leaves before is noticed.
        heartbeat = first_byte = DOCUMENT_SECONDS
    response = EventSourceResponse(
        viewer,
        headers={**(sending.headers or {}), **format.headers, **viewer.headers},
        first_byte=first_byte,
        heartbeat=heartbeat,
        lifetime=lifetime,
        expires_at=sending.expires_at,
        failure_event=format.failure_event(viewer.run.label),
    )
    if format.document:
        response.mimetype = "application/json"
    # Before the client hears of it, who may rely on it: without viewers a run may be cancelled.
    viewer.attach()
    return response
