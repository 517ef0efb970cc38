"""The token of a request: in a header, in the query, or in a cookie that pages can't read.

Cookies are those of RFC 6265.
"""

from __future__ import annotations

import math
import re
import time
from typing import NamedTuple

from flask import Request, Response

from sseflask.errors import Failure

NAME = "sseflask_session"
#: Browsers silently drop a cookie above 4096 bytes, its name and attributes included.
LONGEST_TOKEN = 3800
#: Browsers keep no cookie for longer than 400 days (RFC 6265bis, section 5.5).
LONGEST_SECONDS = 34_560_000

_BEARER = re.compile(r"Bearer +([\w.~+/=-]+) *\Z", re.I | re.A)


class Presented(NamedTuple):
    """A token that was not checked yet; empty if it was malformed.

    A browser adds a token ``by_cookie`` by itself, whichever page made it send the request.
    """

    token: str
    by_cookie: bool


def presented_token(request: Request) -> Presented | None:
    """The header's or the query's token, else the session cookie's, else ``None``."""
    explicit = explicit_token(request)
    if explicit is not None:
        return Presented(explicit, by_cookie=False)
    if "HTTP_COOKIE" not in request.environ:
        return None
    cookie = request.cookies.get(cookie_name(request))
    return None if cookie is None else Presented(cookie, by_cookie=True)


def explicit_token(request: Request) -> str | None:
    """The token that the client itself put into the header or the query (RFC 6750); one at most."""
    in_header = bearer_token(request.environ.get("HTTP_AUTHORIZATION", ""))
    in_query = request.args.getlist("access_token")
    if len(in_query) + (in_header is not None) > 1:
        raise duplicate_token()
    return in_query[0] if in_query else in_header


def bearer_token(authorization: str) -> str | None:
    """The token of an ``Authorization`` header; ``None`` if it has another scheme."""
    if authorization[:6].lower() != "bearer":
        return None
    found = _BEARER.match(authorization)
    # A malformed token must be refused, not ignored in favour of loopback trust.
    return found[1] if found else ""


def duplicate_token() -> Failure:
    return Failure(
        "The request carries more than one token: send one, in the Authorization header or "
        "as access_token in the query (RFC 6750, section 2).",
        status=400,
        type="invalid_request_error",
        code="duplicate_token",
    )


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
