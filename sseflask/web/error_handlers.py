"""Every error of the service as JSON in OpenAI's shape, whoever raised it."""

from __future__ import annotations

from flask import Flask, Response, jsonify
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as BaseResponse

from sseflask.errors import Failure
from sseflask.web.retries import PASSING, SHOULD_RETRY

__all__ = ["install"]

_MESSAGES = {
    404: "There is no such route on this server.",
    413: "The request's body is larger than this server takes (SSEFLASK_MAX_BODY, and for "
    "completions SSEFLASK_MAX_PROMPT).",
    500: "The server failed on this request; its operator finds the reason in the log.",
}


def _http_error(error: HTTPException) -> BaseResponse:
    # The response that Werkzeug made keeps its headers: Allow, Retry-After, Location, ...
    response = error.get_response()
    status = response.status_code
    if status < 400:
        return response
    message = _MESSAGES.get(status) or error.description or error.name
    body = Failure(
        message,
        status=status,
        type="server_error" if status >= 500 else "invalid_request_error",
        code=error.name.lower().replace(" ", "_").replace("'", ""),
    ).body()
    response.content_type = "application/json"
    response.data = jsonify(body).data
    return response


def _final(response: Response) -> Response:
    # OpenAI's clients ask again after a 409 too, unless they are told not to: paid for twice.
    status = response.status_code
    if 400 <= status < 500 and status not in PASSING and SHOULD_RETRY not in response.headers:
        response.headers[SHOULD_RETRY] = "false"
    return response


def install(app: Flask) -> None:
    """Answer HTTP errors, and unexpected exceptions as a plain 500, in the JSON error shape.

    The traceback of an unexpected exception goes to the app's log, never to the client. What is
    final says so to OpenAI's clients.
    """
    app.register_error_handler(HTTPException, _http_error)
    app.after_request(_final)
