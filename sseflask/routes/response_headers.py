"""The headers of every response of the service, and the one request without a route."""

from __future__ import annotations

from collections.abc import Set
from typing import TYPE_CHECKING

from flask import Flask, Response
from werkzeug.datastructures import Headers
from werkzeug.exceptions import NotFound

from sseflask.auth.presented import cookie_name
from sseflask.flask_context import current_request
from sseflask.logs import request_ids
from sseflask.response import EventSourceResponse
from sseflask.transport.gunicorn.server_response import KEY

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

#: The answer to "OPTIONS *" (RFC 9110, section 9.3.7): the methods of all routes.
METHODS = ("GET", "HEAD", "POST", "DELETE", "OPTIONS")


def install(app: Flask) -> None:
    """Add request id, caching and security headers to each response, errors and streams too.

    Must be called before other ``after_request`` functions are registered: Flask calls the first
    one last.
    """
    app.before_request(_answer_for_all)
    app.after_request(_complete)
    app.teardown_request(_end)


def _answer_for_all() -> Response | None:
    environ = current_request().environ
    request_ids.enter(environ)
    path = environ.get("PATH_INFO", "")
    if path.startswith("//"):
        # Werkzeug reads several leading slashes as one; a proxy that forbids a path may not.
        raise NotFound
    if path == "*" and environ["REQUEST_METHOD"] == "OPTIONS":
        return Response(status=204, headers={"Allow": ", ".join(METHODS)})
    return None


def complete_stream(
    response: EventSourceResponse, environ: WSGIEnvironment, token_in_query: bool
) -> EventSourceResponse:
    """Add the same headers to a stream's response that Flask does not dispatch.

    A stream's response has the others itself.
    """
    _add_common(response.headers, {"x-content-type-options"}, environ)
    if token_in_query:
        response.headers.add("Cache-Control", _caching(True))
    return response


def _add_common(headers: Headers, present: Set[str], environ: WSGIEnvironment) -> None:
    if "x-content-type-options" not in present:
        headers.add("X-Content-Type-Options", "nosniff")
    if "x-request-id" not in present:  # an error may have the upstream's id
        headers.add(request_ids.HEADER, request_ids.enter(environ))
    # A token may be in the query of the page that asks.
    if "referrer-policy" not in present:
        headers.add("Referrer-Policy", "no-referrer")


def _caching(token_in_query: bool) -> str:
    return "private, no-store" if token_in_query else "no-store"


def _complete(response: Response) -> Response:
    request, headers = current_request(), response.headers
    # A set, as werkzeug's headers search all of them for each name.
    present = {name.lower() for name, _ in headers}
    _add_common(headers, present, request.environ)
    status, mimetype = response.status_code, response.mimetype
    if status in (204, 304):
        headers.pop("Content-Type", None)  # there is no content
    in_query = "access_token" in request.args
    # Caches store a 204 too (RFC 9110, section 15.1).
    if status == 204 or status >= 400 or mimetype == "text/event-stream" or in_query:
        caching = _caching(in_query)
    elif "Authorization" in request.headers or cookie_name(request) in request.cookies:
        caching = "private"
    else:
        return response
    if "cache-control" not in present:
        headers.add("Cache-Control", caching)
    return response


def _end(error: BaseException | None) -> None:  # noqa: ARG001  # Flask's
    # Our worker does so itself, after the response has been sent.
    if KEY not in current_request().environ:
        request_ids.forget()
