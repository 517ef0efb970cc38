"""What a platform asks before it sends requests here."""

from __future__ import annotations

import sys

from flask import Blueprint, Response, jsonify

__all__ = ["blueprint"]

blueprint = Blueprint("health", __name__)


def _status(status: str, code: int = 200) -> Response:
    response = jsonify(status=status)
    response.status_code = code
    response.cache_control.no_store = True
    return response


@blueprint.get("/healthz")
def healthz() -> Response:
    """Alive: the process answers."""
    return _status("ok")


@blueprint.get("/readyz")
def readyz() -> Response:
    """Ready: new requests may be sent here. 503 once the worker has been told to stop."""
    # Loaded by the worker, if it is one that drains; on other servers there is no gevent.
    drain = sys.modules.get("sseflask.transport.drain")
    if drain is not None and drain.streams.draining:
        return _status("draining", 503)
    return _status("ready")
