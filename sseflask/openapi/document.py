"""The OpenAPI document, and its route."""

from __future__ import annotations

import functools
import json
from typing import Any

from flask import Blueprint, Response, request

from sseflask import __version__

blueprint = Blueprint("openapi", __name__)

#: Seconds for which clients may store the document.
_MAX_AGE = 300

_DESCRIPTION = """\
Streams, channels and completions as Server-Sent Events.

**Errors.** Before the first byte an error is JSON with its status. After it the stream ends with
`event: failure`; a stream of OpenAI's shape with `data: {"error": {...}}`.

**Resuming.** A client presents the id of the last event that it has received, in `Last-Event-ID`
or `last_event_id`, and gets the rest. 204 means that nothing is left.

**EventSource.** A request with `Accept: text/event-stream` and `Cache-Control: no-cache` is that
of an EventSource, which any status but 200 closes for good. A temporary refusal (429, 503 with
`Retry-After`) is then 200 and a stream with `retry:` only.

**Streams.** Comments (`: ping`) keep a silent stream open. `Cache-Control` is
`no-store, no-transform`.

**Methods.** Each route with GET answers HEAD without a body, and starts nothing. Another method
is 405 with `Allow`, another path 404, both with an error as below.

**Request ids.** A request may bring its `X-Request-Id`; each response has one.

**Tokens.** In development mode requests from this machine need none.
"""

_TAGS = {
    "counter": "A stream to watch.",
    "channels": "Publish to names, subscribe to names and patterns.",
    "completions": "Answers of a model, stored as they come, with any number of viewers.",
    "OpenAI's API": "For code that is written for it: another base URL, and a token as its key.",
    "session": "A cookie for pages.",
    "service": "The page, its module, and the checks of a platform.",
}


def document() -> dict[str, Any]:
    """The OpenAPI document (OpenAPI Specification, version 3.1).

    Its server is the place that it is read from, so it is right under any prefix.
    """
    # Imported at the first request: no worker starts later for them.
    from sseflask.openapi import channel_paths, run_paths, service_paths
    from sseflask.openapi.operation import HEADERS, RESPONSES, SECURITY
    from sseflask.openapi.schemas import SCHEMAS

    return {
        "openapi": "3.1.0",
        "info": {"title": "sseflask", "version": __version__, "description": _DESCRIPTION},
        "servers": [{"url": "./"}],
        "tags": [{"name": name, "description": says} for name, says in _TAGS.items()],
        "paths": {**service_paths.PATHS, **channel_paths.PATHS, **run_paths.PATHS},
        "components": {
            "schemas": SCHEMAS,
            "headers": HEADERS,
            "responses": RESPONSES,
            "securitySchemes": SECURITY,
        },
    }


@functools.cache
def _content() -> bytes:
    return json.dumps(document(), ensure_ascii=False, separators=(",", ":")).encode()


@blueprint.get("/openapi.json")
def openapi() -> Response:
    """The HTTP contract, for tools and people; open to all."""
    response = Response(_content(), mimetype="application/json")
    response.cache_control.public = True
    response.cache_control.max_age = _MAX_AGE
    response.add_etag()
    response.make_conditional(request)
    return response
