"""The token that a request carries, and what carries it."""

from __future__ import annotations

import re
from typing import NamedTuple

from flask import Request

from sseflask.auth.cookie import cookie_name
from sseflask.errors import Failure

__all__ = ["Presented", "duplicate_token", "explicit_token", "presented_token"]

_BEARER = re.compile(r"Bearer +([\w.~+/=-]+) *\Z", re.I | re.A)


class Presented(NamedTuple):
    """A token as it came in; not checked, and empty where what came in can't be one.

    Args:
        token: its text.
        by_cookie: the browser added it by itself, whoever made it send the request.
    """

    token: str
    by_cookie: bool


def presented_token(asked: Request) -> Presented | None:
    """The header's or the query's token, else the session cookie's, else ``None``.

    Raises:
        Failure: 400, the request carries more than one in header and query.
    """
    explicit = explicit_token(asked)
    if explicit is not None:
        return Presented(explicit, by_cookie=False)
    kept = asked.cookies.get(cookie_name(asked))
    return None if kept is None else Presented(kept, by_cookie=True)


def explicit_token(asked: Request) -> str | None:
    """The token that the client itself put into the header or the query (RFC 6750).

    Raises:
        Failure: 400, there is more than one.
    """
    scheme = asked.headers.get("Authorization", "")
    in_header = scheme[:6].lower() == "bearer"
    in_query = asked.args.getlist("access_token")
    if len(in_query) + in_header > 1:
        raise duplicate_token()
    if in_query:
        return in_query[0]
    if in_header:
        found = _BEARER.match(scheme)
        # Malformed is presented all the same: it must fail, not fall back to loopback.
        return found[1] if found else ""
    return None


def duplicate_token() -> Failure:
    """A 400 for a request with more than one token."""
    return Failure(
        "The request carries more than one token: send one, in the Authorization header or "
        "as access_token in the query (RFC 6750, section 2).",
        status=400,
        type="invalid_request_error",
        code="duplicate_token",
    )
