"""The page, the checks of a platform, and the figures for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flask import Blueprint, Response, current_app, jsonify, request
from prometheus_client import exposition
from prometheus_client.openmetrics import exposition as openmetrics

from sseflask.auth.access import require_figures
from sseflask.extension import channels_of, runs_of
from sseflask.metrics.collector import FiguresCollector
from sseflask.readiness import Readiness, StoreState, is_draining, readiness_of, state_of
from sseflask.store.api import Health

blueprint = Blueprint("service", __name__)
#: In development, or if it is asked for.
page_blueprint = Blueprint("page", __name__)

#: Nothing from other origins, no inline script, no frame around the page.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

#: What gets 503, by the state of a store.
_CHANNELS_REFUSED: Mapping[Health, str] = {
    "read_only": "publishing",
    "unavailable": "publishing, and subscribing with a cursor",
}
_COMPLETIONS_REFUSED: Mapping[Health, str] = {
    "read_only": "new completions",
    "unavailable": "new completions, and those of other workers",
}

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
    everything else goes on, and other workers fail too: so this is not a 503, unless the query
    has ``stores=required`` and a store can't even be read.
    """
    if is_draining():
        return _status("draining", 503)
    found = readiness_of(channels_of(current_app))
    completions = state_of(runs_of(current_app).store)
    away = "unavailable" in (found.log, completions.log)
    refused = away and request.args.get("stores") == "required"
    return _status(
        "unavailable" if refused else "ready",
        503 if refused else 200,
        channels={
            **_shown(found, _CHANNELS_REFUSED),
            "history": found.history,
            "meaning": found.meaning,
        },
        completions=_shown(completions, _COMPLETIONS_REFUSED),
    )


def _shown(state: Readiness | StoreState, refused: Mapping[Health, str]) -> dict[str, str]:
    shown: dict[str, str] = {"log": state.log}
    if state.log in refused:
        shown["refused"] = refused[state.log]
    if state.reason:
        shown["reason"] = state.reason
    if state.since is not None:
        shown["since"] = state.since.strftime("%Y-%m-%dT%H:%M:%SZ")
    if state.warning:
        shown["warning"] = state.warning
    return shown


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
