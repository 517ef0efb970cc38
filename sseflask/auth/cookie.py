"""The session cookie: a token that the browser stores and its pages can't read. RFC 6265."""

from __future__ import annotations

import math
import time

from flask import Request, Response

NAME = "sseflask_session"
#: Browsers silently drop a cookie above 4096 bytes, its name and attributes included.
LONGEST_TOKEN = 3800
#: Browsers keep no cookie for longer than 400 days (RFC 6265bis, section 5.5).
LONGEST_SECONDS = 34_560_000


def cookie_name(request: Request) -> str:
    """The name of the cookie for requests of this scheme.

    Over TLS it has the prefix ``__Host-``, and only that cookie is read: neither another host of
    the same domain nor a plain connection can set it.
    """
    return f"__Host-{NAME}" if request.is_secure else NAME


def set_cookie(response: Response, request: Request, token: str, expires: float | None) -> None:
    """Set a cookie that ends with its token.

    Args:
        token: a valid one, at most `LONGEST_TOKEN` characters long.
        expires: when it ends, in seconds since 1970; ``None`` for when the browser is closed.
    """
    seconds = None
    if expires is not None:
        # Browsers prefer these to the date that Werkzeug adds: their clocks may be wrong.
        seconds = math.ceil(min(max(expires - time.time(), 0), LONGEST_SECONDS))
    _put(response, request, token, seconds)


def clear_cookie(response: Response, request: Request) -> None:
    """Delete the cookie in the browser."""
    _put(response, request, "", 0)


def _put(response: Response, request: Request, value: str, max_age: int | None) -> None:
    response.set_cookie(
        cookie_name(request),
        value,
        max_age=max_age,
        path="/",
        secure=request.is_secure,
        httponly=True,
        samesite="Strict",
    )
