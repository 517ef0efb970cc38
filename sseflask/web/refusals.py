"""Errors as responses: JSON in OpenAI's shape, or a stream that has an EventSource reconnect."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from flask import Flask, Response, current_app, jsonify, request
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as BaseResponse

from sseflask.defaults import setting
from sseflask.errors import SHOULD_RETRY, TEMPORARY, ChannelError, Failure
from sseflask.event import Comment, Event
from sseflask.wire import encode

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_MESSAGES = {
    404: "There is no such route on this server.",
    413: "The request's body is larger than this server takes (SSEFLASK_MAX_BODY, and for "
    "completions SSEFLASK_MAX_PROMPT).",
    500: "The server failed on this request; its operator finds the reason in the log.",
}


def install(app: Flask) -> None:
    """Answer HTTP errors, and unexpected exceptions as a plain 500, in the JSON error shape.

    The traceback of an unexpected exception goes to the app's log, never to the client. Final
    errors have the header ``X-Should-Retry: false``.
    """
    app.register_error_handler(HTTPException, _http_error)
    app.after_request(_mark_final)


def is_event_source(environ: WSGIEnvironment) -> bool:
    """Whether the client is an EventSource, which can't read headers but knows an id without data.

    It sends the headers of the standards (WHATWG HTML, section 9.2.2; Fetch, section 4.6, for the
    cache mode no-store). Other readers may take an id without data for an empty event.
    """
    return environ.get("HTTP_ACCEPT") == "text/event-stream" and "no-cache" in environ.get(
        "HTTP_CACHE_CONTROL", ""
    )


def bad_channel(error: ChannelError) -> Response:
    """The response to a malformed channel name, which usually comes from the request."""
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
    """The response to a request that failed; see `Failure`."""
    if failure.transient and request.method == "GET" and is_event_source(request.environ):
        return _reconnect_later(failure)
    return _json_error(failure)


def _reconnect_later(failure: Failure) -> Response:
    """A stream that ends at once: an EventSource reconnects after it, with a jitter."""
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


def _http_error(error: HTTPException) -> BaseResponse:
    # Werkzeug's response keeps its headers: Allow, Retry-After, Location, ...
    response = error.get_response()
    status = response.status_code
    if status < 400:
        return response
    failure = Failure(
        _MESSAGES.get(status) or error.description or error.name,
        type="server_error" if status >= 500 else "invalid_request_error",
        code=error.name.lower().replace(" ", "_").replace("'", ""),
    )
    response.content_type = "application/json"
    response.data = jsonify(failure.body()).data
    return response


def _mark_final(response: Response) -> Response:
    # Without it OpenAI's clients repeat a request after a 409, which is then paid for twice.
    status = response.status_code
    if 400 <= status < 500 and status not in TEMPORARY and SHOULD_RETRY not in response.headers:
        response.headers[SHOULD_RETRY] = "false"
    return response
