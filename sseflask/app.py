"""The service: the library's parts as one Flask app, configured from the environment."""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from flask import Flask
from flask.json.provider import DefaultJSONProvider
from werkzeug.middleware.proxy_fix import ProxyFix

from sseflask.auth.access import Access
from sseflask.completions.upstream import Upstream
from sseflask.config import load, warn_about_ineffective, warn_about_unknown
from sseflask.extension import SSE, channels_of, runs_of, store_address
from sseflask.logs import request_ids
from sseflask.logs.masking import MaskingFilter, guard
from sseflask.metrics.live import LiveFigures
from sseflask.openapi import document as openapi_document
from sseflask.routes import (
    channels,
    completions,
    counter,
    openai,
    response_headers,
    runs,
    service,
    session,
)
from sseflask.routes.begin_run import SizedRequest
from sseflask.routes.front_door import FrontDoor
from sseflask.store.names import FIGURES, Pattern
from sseflask.store.open import (
    PerProcess,
    event_store_problem,
    open_rate_counter,
    run_store_problem,
)
from sseflask.web import refusals
from sseflask.web.cors import allow_origins
from sseflask.web.rate_limits import Limits

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

log = logging.getLogger(__name__)

#: The modules with the routes of every deployment.
_ROUTES = (counter, completions, runs, openai, channels, session, service, openapi_document)


def create_app(development: bool = False) -> Flask:
    """The service as a WSGI app.

    Args:
        development: trust requests from this machine; never behind a proxy.

    Raises:
        ConfigError: a setting has a value that is not allowed.
    """
    settings = load()
    _log_to_stderr(settings.confidential, settings.log_format)
    warn_about_unknown()
    warn_about_ineffective(settings)
    app = Flask("sseflask", static_folder="static")
    app.request_class = SizedRequest
    # No permanent redirection: browsers store it, with a token that its address may have.
    app.url_map.merge_slashes = False
    # Flask calls it for six functions in each request, always with the same result.
    app.ensure_sync = functools.cache(app.ensure_sync)  # type: ignore[method-assign]
    app.config.update(
        MAX_CONTENT_LENGTH=settings.max_body,
        MAX_FORM_MEMORY_SIZE=settings.max_body,
        **settings.of_library(),
    )
    if isinstance(app.json, DefaultJSONProvider):
        app.json.sort_keys = False  # the message first, as OpenAI's API has it
    response_headers.install(app)
    refusals.install(app)
    SSE(app)
    guard(logging.getLogger("sseflask"), settings.confidential)
    # The logger of Flask's development server, which logs queries.
    guard(logging.getLogger("werkzeug"), settings.confidential)
    access = Access(settings.secrets, development=development, public=settings.public_patterns)
    access.init_app(app)
    allow_origins(app, settings.cors_origins)
    Upstream(settings).init_app(app)
    counter = settings.store and PerProcess(functools.partial(open_rate_counter, settings.store))
    Limits(
        settings.rate_limit, settings.publish_rate_limit, counter.get if counter else None
    ).init_app(app)
    runs_of(app).open_at_start()
    for module in _ROUTES:
        app.register_blueprint(module.blueprint)
    if development or settings.page:
        app.register_blueprint(service.page_blueprint)
        if not development and _are_public(settings.public_patterns):
            log.warning(
                "The page shows no live data: SSEFLASK_PUBLIC_CHANNELS would let everybody read "
                "the service's figures. If that is what you want, add %s to it.",
                FIGURES,
            )
        else:
            LiveFigures(channels_of(app)).begin()
    _check_files(app)
    if not settings.cors_origins:  # a response to a page of another origin has more headers
        app.wsgi_app = FrontDoor(app, access)  # type: ignore[method-assign]
    if settings.trusted_proxies:
        app.wsgi_app = _TrustedProxies(app.wsgi_app, settings.trusted_proxies)  # type: ignore[method-assign]
    return app


def _are_public(public: Sequence[Pattern]) -> bool:
    """Whether public patterns cover the figures' channel without naming it."""
    matching = [pattern for pattern in public if pattern.matches(FIGURES)]
    return bool(matching) and not any(pattern.prefix for pattern in matching)


def _check_files(app: Flask) -> None:
    """Log at the start why a store's file can't be used, and not only when a request fails."""
    channel_log = store_address(app, "SSEFLASK_CHANNEL_LOG", "channels.sqlite3")
    run_log = store_address(app, "SSEFLASK_RUN_LOG", "runs.sqlite3")
    for stored, problem in (
        ("Channels", event_store_problem(channel_log)),
        ("Completions", run_store_problem(run_log)),
    ):
        if problem:
            log.error("%s are answered with 503, as their file can't be used: %s.", stored, problem)


class _TrustedProxies:
    """Takes ``REMOTE_ADDR`` and the scheme from the headers of this many proxies.

    Each proxy adds an entry to ``X-Forwarded-For``. Most set ``X-Forwarded-Proto``, and few add to
    it: if it has fewer entries than there are proxies, the first entry is the client's scheme.
    """

    def __init__(self, application: WSGIApplication, proxies: int) -> None:
        self._by_entries = [
            ProxyFix(application, x_for=proxies, x_proto=entries, x_host=0)
            for entries in range(1, proxies + 1)
        ]

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        schemes: str = environ.get("HTTP_X_FORWARDED_PROTO", "")
        more = min(schemes.count(","), len(self._by_entries) - 1)
        return self._by_entries[more](environ, start_response)


class _TextFormatter(logging.Formatter):
    """The log as text: time, process, level, message, and the id of the request."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s [%(process)d] [%(levelname)s] %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        message, id = super().formatMessage(record), request_ids.current()
        return f"{message} (request {id})" if id else message


def _log_to_stderr(secrets: Sequence[str], layout: str) -> None:
    """Write the log of sseflask, masked; if logging is configured already, mask its handlers."""
    ours = logging.getLogger("sseflask")
    if layout == "json":
        from sseflask.logs import json_log

        json_log.install(secrets)
    if ours.hasHandlers():
        for existing in [*ours.handlers, *logging.getLogger().handlers]:
            existing.addFilter(MaskingFilter(secrets))
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_TextFormatter())
    handler.addFilter(MaskingFilter(secrets))
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
