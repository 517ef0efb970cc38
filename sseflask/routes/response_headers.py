"""The headers of every response of the service, and the one request without a route."""

from __future__ import annotations

from flask import Flask, Response
from werkzeug.exceptions import NotFound

from sseflask.auth.presented import cookie_name
from sseflask.flask_context import current_request
from sseflask.logs import request_ids
from sseflask.transport.gunicorn.server_response import KEY

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


def _complete(response: Response) -> Response:
    request, headers = current_request(), response.headers
    # A set, as werkzeug's headers search all of them for each name.
    present = {name.lower() for name, _ in headers}
    if "x-content-type-options" not in present:
        headers.add("X-Content-Type-Options", "nosniff")
    if "x-request-id" not in present:  # an error may have the upstream's id
        headers.add(request_ids.HEADER, request_ids.enter(request.environ))
    # A token may be in the query of the page that asks.
    if "referrer-policy" not in present:
        headers.add("Referrer-Policy", "no-referrer")
    status, mimetype = response.status_code, response.mimetype
    if status in (204, 304):
        headers.pop("Content-Type", None)  # there is no content
    in_query = "access_token" in request.args
    # Caches store a 204 too (RFC 9110, section 15.1).
    if status == 204 or status >= 400 or mimetype == "text/event-stream" or in_query:
        caching = "private, no-store" if in_query else "no-store"
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
