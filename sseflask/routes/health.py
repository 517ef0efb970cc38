"""What a platform asks before it sends requests here."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, current_app, jsonify

from sseflask.extension import channels_of
from sseflask.readiness import is_draining, readiness_of
from sseflask.runs.runs import current_runs

__all__ = ["blueprint"]

blueprint = Blueprint("health", __name__)


def _status(status: str, code: int = 200, **more: Any) -> Response:
    response = jsonify(status=status, **more)
    response.status_code = code
    response.cache_control.no_store = True
    return response


@blueprint.get("/healthz")
def healthz() -> Response:
    """Alive: the process answers."""
    return _status("ok")


@blueprint.get("/readyz")
def readyz() -> Response:
    """Ready: new requests may be sent here. 503 once the worker has been told to stop.

    Also says how the logs do. While one fails publishers get 503, or who wants a completion, but
    everything else goes on, and another worker of this machine would do no better: so that is no
    reason for 503.
    """
    if is_draining():
        return _status("draining", 503)
    found = readiness_of(channels_of(current_app))
    return _status(
        "ready",
        channels={"log": found.log, "history": found.history, "meaning": found.meaning},
        completions={"log": current_runs().health()},
    )
