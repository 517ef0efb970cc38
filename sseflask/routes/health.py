"""What a platform asks before it sends requests here."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify

__all__ = ["blueprint"]

blueprint = Blueprint("health", __name__)


def _status(status: str) -> Response:
    response = jsonify(status=status)
    response.cache_control.no_store = True
    return response


@blueprint.get("/healthz")
def healthz() -> Response:
    """Alive: the process answers."""
    return _status("ok")


@blueprint.get("/readyz")
def readyz() -> Response:
    """Ready: new requests may be sent here."""
    return _status("ready")
