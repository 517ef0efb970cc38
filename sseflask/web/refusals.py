"""How requests are refused: a JSON error, or for an EventSource that may come back a stream."""

from __future__ import annotations

import random

from flask import Request, Response, current_app, jsonify, request

from sseflask.defaults import setting
from sseflask.errors import ChannelError, Failure
from sseflask.event import Comment, Event
from sseflask.wire import encode

__all__ = ["bad_channel", "is_event_source", "refuse"]


def is_event_source(asked: Request) -> bool:
    """Whether this is an EventSource, which can't read headers but knows an id without data.

    It asks as the standards have it (WHATWG HTML, section 9.2.2; Fetch, section 4.6, for the cache
    mode no-store). Readers that do not follow them take an id without data for an empty event.
    """
    return asked.headers.get(
        "Accept", ""
    ) == "text/event-stream" and "no-cache" in asked.headers.get("Cache-Control", "")


def bad_channel(error: ChannelError) -> Response:
    """The answer to a name that is none: it usually comes from the request."""
    message = str(error)
    return _json_error(
        Failure(
            f"{message[:1].upper()}{message[1:]}.",
            status=400,
            type="invalid_request_error",
            param="channel",
            code="invalid_channel",
        )
    )


def refuse(failure: Failure) -> Response:
    """The answer to a request that failed; see `Failure`."""
    if failure.transient and request.method == "GET" and is_event_source(request):
        return _come_back_later(failure)
    return _json_error(failure)


def _come_back_later(failure: Failure) -> Response:
    """A stream that ends at once: an EventSource reconnects after it, not all at one moment."""
    jitter = int(setting(current_app.config, "SSEFLASK_RETRY_JITTER"))
    seconds = failure.headers.get("Retry-After", "")
    wait = (int(seconds) if seconds.isdecimal() else 1) * 1000 + random.randint(0, jitter)
    cursor = encode(Event(id=failure.cursor)) if failure.cursor else b""
    response = Response(
        encode(Comment(failure.message)) + b"retry: %d\n" % wait + cursor,
        mimetype="text/event-stream",
        headers=failure.headers,
    )
    response.cache_control.no_store = True
    return response


def _json_error(failure: Failure) -> Response:
    response = jsonify(failure.body())
    response.status_code = failure.status
    response.headers.update(failure.headers)
    return response
