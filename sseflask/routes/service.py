"""The page, the checks of a platform, and the figures for Prometheus."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, current_app, jsonify, request
from prometheus_client import exposition
from prometheus_client.openmetrics import exposition as openmetrics

from sseflask.auth.access import require_figures
from sseflask.extension import channels_of
from sseflask.metrics.collector import FiguresCollector
from sseflask.readiness import is_draining, readiness_of
from sseflask.runs.runs import current_runs

blueprint = Blueprint("service", __name__)
#: In development, or if it is asked for.
page_blueprint = Blueprint("page", __name__)

#: Nothing from other origins, no inline script, no frame around the page.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

#: Prometheus' text format, in the oldest version, which suffices for our names.
_TEXT = "text/plain; version=0.0.4; charset=utf-8"

#: Its function has no types.
_openmetrics: Callable[[FiguresCollector], bytes] = openmetrics.generate_latest


@page_blueprint.get("/")
def page() -> Response:
    """The features of the service, each with the frames on the wire.

    All its addresses are relative: it works below any path, also if a proxy removes the path.
    """
    response = current_app.send_static_file("page/index.html")
    response.headers["Content-Security-Policy"] = _POLICY
    return response


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


@blueprint.get("/metrics")
def metrics() -> Response:
    """All figures of all workers, in Prometheus' text format or in OpenMetrics."""
    require_figures()
    app = current_app._get_current_object()  # type: ignore[attr-defined]  # LocalProxy
    collector = FiguresCollector(app)
    if _wants_openmetrics():
        body, kind = _openmetrics(collector), openmetrics.CONTENT_TYPE_LATEST
    else:
        body, kind = exposition.generate_latest(collector), _TEXT
    response = Response(body, content_type=kind)
    response.cache_control.no_store = True
    response.vary.add("Accept")
    return response


def _wants_openmetrics() -> bool:
    """Whether the client prefers OpenMetrics, of any version."""
    # Werkzeug sorts by specificity first, not by quality; sorted() is stable.
    for accepted, _ in sorted(request.accept_mimetypes, key=lambda each: each[1], reverse=True):
        name = accepted.partition(";")[0].strip().lower()
        if name in ("application/openmetrics-text", "text/plain", "text/*", "*/*"):
            return name == "application/openmetrics-text"
    return False
