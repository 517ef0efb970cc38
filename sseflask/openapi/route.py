"""The route of the document."""

from __future__ import annotations

import functools
import json

from flask import Blueprint, Response, request

blueprint = Blueprint("openapi", __name__)

#: Seconds for which nobody need ask again.
_KEPT = 300


@functools.cache
def _content() -> bytes:
    # Its parts are made when somebody asks: no worker starts later for them.
    from sseflask.openapi.document import document

    return json.dumps(document(), ensure_ascii=False, separators=(",", ":")).encode()


@blueprint.get("/openapi.json")
def openapi() -> Response:
    """The HTTP contract, for tools and people; open to all."""
    response = Response(_content(), mimetype="application/json")
    response.cache_control.public = True
    response.cache_control.max_age = _KEPT
    response.add_etag()
    response.make_conditional(request)
    return response
