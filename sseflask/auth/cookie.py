"""The session cookie: a token that the browser keeps and its pages can't read. RFC 6265."""

from __future__ import annotations

import math
import time

from flask import Request, Response

__all__ = ["LONGEST_TOKEN", "clear_cookie", "cookie_name", "set_cookie"]

NAME = "sseflask_session"
#: Browsers silently drop a cookie above 4096 bytes, its name and attributes included.
LONGEST_TOKEN = 3800
#: Browsers keep no cookie for longer than 400 days (RFC 6265bis, section 5.5).
LONGEST_SECONDS = 34_560_000


def cookie_name(asked: Request) -> str:
    """What the cookie is called where the request came from.

    Over TLS with the prefix ``__Host-``: then neither a neighbour under the same domain nor
    somebody on a plain connection can plant one. Only that one is read there.
    """
    return f"__Host-{NAME}" if asked.is_secure else NAME


def set_cookie(response: Response, asked: Request, token: str, expires: float | None) -> None:
    """Have the browser keep the token until it ends.

    Args:
        response: what will carry the cookie.
        asked: the request it answers.
        token: a valid one, at most `LONGEST_TOKEN` characters long.
        expires: when it ends, in seconds since 1970; ``None`` for when the browser is closed.
    """
    if expires is None:
        _put(response, asked, token, None)
        return
    left = min(max(expires - time.time(), 0), LONGEST_SECONDS)
    # Seconds from now, which win over the date that Werkzeug adds: a browser's clock may be wrong.
    _put(response, asked, token, math.ceil(left))


def clear_cookie(response: Response, asked: Request) -> None:
    """Have the browser forget the cookie."""
    _put(response, asked, "", 0)


def _put(response: Response, asked: Request, value: str, max_age: int | None) -> None:
    response.set_cookie(
        cookie_name(asked),
        value,
        max_age=max_age,
        path="/",
        secure=asked.is_secure,
        httponly=True,
        samesite="Strict",
    )
