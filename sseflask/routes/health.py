"""The checks of a platform: alive and ready."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, current_app, jsonify

from sseflask.extension import channels_of
from sseflask.readiness import is_draining, readiness_of
from sseflask.runs.runs import current_runs

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
    """Ready: new requests may be sent here. 503 while the worker shuts down.

    It also reports the state of the stores. If one fails, publishing or completions get 503, but
    everything else goes on, and other workers of this machine fail too: so this is not a 503.
    """
    if is_draining():
        return _status("draining", 503)
    found = readiness_of(channels_of(current_app))
    return _status(
        "ready",
        channels={"log": found.log, "history": found.history, "meaning": found.meaning},
        completions={"log": current_runs().store.health()},
    )
