"""The token of a request, and where it was: header, query or cookie."""

from __future__ import annotations

import re
from typing import NamedTuple

from flask import Request

from sseflask.auth.cookie import cookie_name
from sseflask.errors import Failure

_BEARER = re.compile(r"Bearer +([\w.~+/=-]+) *\Z", re.I | re.A)


class Presented(NamedTuple):
    """A token that was not checked yet; empty if it was malformed.

    A browser adds one ``by_cookie`` by itself, whichever page made it send the request.
    """

    token: str
    by_cookie: bool


def presented_token(request: Request) -> Presented | None:
    """The header's or the query's token, else the session cookie's, else ``None``."""
    explicit = explicit_token(request)
    if explicit is not None:
        return Presented(explicit, by_cookie=False)
    cookie = request.cookies.get(cookie_name(request))
    return None if cookie is None else Presented(cookie, by_cookie=True)


def explicit_token(request: Request) -> str | None:
    """The token that the client itself put into the header or the query (RFC 6750); one at most."""
    scheme = request.headers.get("Authorization", "")
    in_header = scheme[:6].lower() == "bearer"
    in_query = request.args.getlist("access_token")
    if len(in_query) + in_header > 1:
        raise duplicate_token()
    if in_query:
        return in_query[0]
    if in_header:
        found = _BEARER.match(scheme)
        # A malformed token must be refused, not ignored in favour of loopback trust.
        return found[1] if found else ""
    return None


def duplicate_token() -> Failure:
    return Failure(
        "The request carries more than one token: send one, in the Authorization header or "
        "as access_token in the query (RFC 6750, section 2).",
        status=400,
        type="invalid_request_error",
        code="duplicate_token",
    )
