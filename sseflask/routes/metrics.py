"""The figures for Prometheus, and other programs that read its formats."""

from __future__ import annotations

from collections.abc import Callable

from flask import Blueprint, Response, current_app, request
from prometheus_client import exposition
from prometheus_client.openmetrics import exposition as openmetrics

from sseflask.auth.access import require_figures
from sseflask.metrics.collector import FiguresCollector

blueprint = Blueprint("metrics", __name__)

#: Prometheus' text format, in the oldest version, which suffices for our names.
_TEXT = "text/plain; version=0.0.4; charset=utf-8"

#: Its function has no types.
_openmetrics: Callable[[FiguresCollector], bytes] = openmetrics.generate_latest


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
