"""What a platform asks before it sends requests here."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from flask import Blueprint, Response, current_app, jsonify

from sseflask.channels.disk import Kept
from sseflask.completions.runs import current_runs
from sseflask.extension import channels_of

__all__ = ["blueprint"]

blueprint = Blueprint("health", __name__)


_MEANING: Mapping[Kept, str] = {
    "memory": "History is in the memory of one worker and is gone with it: subscribers that come "
    "back are then told so with a gap event.",
    "ephemeral": "History is on a disk that is gone when this container or machine is restarted: "
    "subscribers that come back are then told so with a gap event. SSEFLASK_CHANNEL_LOG can name a "
    "file on another disk.",
    "disk": "History is in a file on this machine's disk and outlives restarts and deploys, unless "
    "the platform replaces the disk: subscribers that come back are then told so with a gap event.",
}


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
    # Loaded by the worker, if it is one that drains; on other servers there is no gevent.
    drain = sys.modules.get("sseflask.transport.drain")
    if drain is not None and drain.streams.draining:
        return _status("draining", 503)
    channels = channels_of(current_app)
    kept = channels.kept()
    return _status(
        "ready",
        channels={"log": channels.condition(), "history": kept, "meaning": _MEANING[kept]},
        completions={"log": current_runs().condition()},
    )
