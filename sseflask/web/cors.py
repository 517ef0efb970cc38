"""The pages of other origins: their access to the event routes (CORS, Fetch standard)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from flask import Flask, Response, request
from flask_cors import CORS

#: The routes for pages of other origins: not the page, the session and the metrics.
EVENT_ROUTES = re.compile(r"/(?:channels|runs|sse|v1)(?:/|\Z)")
METHODS = ("GET", "HEAD", "POST", "DELETE")
SHOWN = (
    "Idempotency-Replayed, Last-Event-ID, Retry-After, Retry-After-Ms, X-RateLimit-Limit-Requests, "
    "X-RateLimit-Limit-Tokens, X-RateLimit-Remaining-Requests, X-RateLimit-Remaining-Tokens, "
    "X-RateLimit-Reset-Requests, X-RateLimit-Reset-Tokens, X-Request-Id, X-Run-Id, X-Should-Retry, "
    "X-Upstream-Request-Id, X-Vercel-AI-UI-Message-Stream"
)
#: Seconds for which a browser stores a preflight. An origin that is removed from the list keeps its
#: access for this time.
MAX_AGE = 600


def allow_origins(app: Flask, origins: Sequence[str]) -> None:
    """Answer preflights, and add CORS headers to responses, streams and errors too.

    Never with credentials: browsers then send no cookie, or give the page no response.
    The origins are as browsers send them, or only ``*``; none at all changes nothing.
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
        # All headers: clients send many of their own (OpenAI's: x-stainless-*), and none of them
        # gives the page a right.
        allow_headers="*",
        expose_headers=SHOWN,
        max_age=MAX_AGE,
        supports_credentials=False,
        # Named origins may come from the internet to a server of a local network.
        allow_private_network=not everybody,
        send_wildcard=everybody,
        vary_header=False,
        # Flask calls after_request functions for errors too.
        intercept_exceptions=False,
    )
    if not everybody:
        app.after_request(_vary)


def _vary(response: Response) -> Response:
    # Flask-CORS does so only for allowed origins: a cache could then give them a response that it
    # has stored for another one (Fetch standard, "CORS protocol and HTTP caches").
    if EVENT_ROUTES.match(request.path):
        response.vary.add("Origin")
    return response
