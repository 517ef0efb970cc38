"""Other origins' pages: what browsers let them have of the event routes (Fetch standard, CORS)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from flask import Flask, Response, request
from flask_cors import CORS

__all__ = ["allow_origins"]

#: The page, the session and the metrics are not for others.
EVENT_ROUTES = re.compile(r"/(?:channels|runs|sse|v1)(?:/|\Z)")
METHODS = ("GET", "HEAD", "POST", "DELETE")
SHOWN = (
    "Idempotency-Replayed",
    "Last-Event-ID",
    "Retry-After",
    "Retry-After-Ms",
    "X-RateLimit-Limit-Requests",
    "X-RateLimit-Limit-Tokens",
    "X-RateLimit-Remaining-Requests",
    "X-RateLimit-Remaining-Tokens",
    "X-RateLimit-Reset-Requests",
    "X-RateLimit-Reset-Tokens",
    "X-Request-Id",
    "X-Run-Id",
    "X-Should-Retry",
    "X-Upstream-Request-Id",
    "X-Vercel-AI-UI-Message-Stream",
)
#: Seconds for which a browser need not ask again; an origin that is taken out of the list may go
#: on for so long.
REMEMBERED = 600


def allow_origins(app: Flask, origins: Sequence[str]) -> None:
    """Answer preflights and mark responses, streams and errors too, for pages of these origins.

    Never with credentials: browsers keep cookies back, or the response from the page.

    Args:
        app: the application, before its first request.
        origins: in the form that browsers send, or only ``*``; none at all changes nothing.
    """
    if not origins:
        return
    everybody = list(origins) == ["*"]
    CORS(
        app,
        resources=EVENT_ROUTES,
        # Compiled, for Flask-CORS takes the brackets of an IPv6 address for an expression, and
        # matches expressions at the beginning only.
        origins="*" if everybody else [re.compile(re.escape(each) + r"\Z") for each in origins],
        methods=METHODS,
        # Whatever is asked for: clients send many of their own (OpenAI's: x-stainless-*), and none
        # of them gives a right that the page has not.
        allow_headers="*",
        expose_headers=SHOWN,
        max_age=REMEMBERED,
        supports_credentials=False,
        # Origins that are named may come from the internet to a server of a local network.
        allow_private_network=not everybody,
        send_wildcard=everybody,
        vary_header=False,
        # Flask runs what is called after a request for errors too.
        intercept_exceptions=False,
    )
    if not everybody:
        app.after_request(_vary)


def _vary(response: Response) -> Response:
    # Flask-CORS does so only where the origin is allowed: a cache could then give that origin what
    # it has kept for another (Fetch standard, "CORS protocol and HTTP caches").
    if EVENT_ROUTES.match(request.path):
        response.vary.add("Origin")
    return response
