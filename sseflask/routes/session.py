"""The session: a token as a cookie, for pages, whose EventSource can't set headers."""

from __future__ import annotations

from flask import Blueprint, Response, request
from pydantic import BaseModel

from sseflask.auth.access import check_token, missing_token, refuse_other_sites
from sseflask.auth.presented import (
    LONGEST_TOKEN,
    clear_cookie,
    duplicate_token,
    explicit_token,
    set_cookie,
)
from sseflask.errors import invalid
from sseflask.web.parameters import Text, read_parameters

blueprint = Blueprint("session", __name__)


class SessionParameters(BaseModel):
    """The parameters of a session, if the token is not in the Authorization header."""

    token: Text | None = None


@blueprint.post("/session")
def open_session() -> Response:
    """Trade a token for a cookie that ends when it does.

    The cookie has the token itself; nothing is stored here. A page of another site can't sign the
    browser in as a user of its choice.
    """
    refuse_other_sites()
    token = _token()
    caller = check_token(token)
    if len(token) > LONGEST_TOKEN:
        raise invalid(
            f"The token is too long for a cookie: it may have {LONGEST_TOKEN} characters. "
            "Ask for one with fewer patterns.",
            param="token",
            code="token_too_long",
        )
    response = _empty()
    set_cookie(response, request, token, caller.expires)
    return response


@blueprint.delete("/session")
def close_session() -> Response:
    """Delete the cookie in the browser; the token itself stays valid until it ends."""
    refuse_other_sites()
    response = _empty()
    clear_cookie(response, request)
    return response


def _token() -> str:
    for name in ("access_token", "token"):
        if name in request.args:
            raise invalid(
                "The token must not be in the URL here: send the header Authorization: Bearer "
                "<token>, or token in a form or a JSON object.",
                param=name,
                code="token_in_url",
            )
    in_header, in_body = explicit_token(request), read_parameters(SessionParameters).token
    if in_header is not None and in_body is not None:
        raise duplicate_token()
    token = in_body if in_header is None else in_header
    if token is None:
        raise missing_token()
    return token


def _empty() -> Response:
    response = Response(status=204)
    response.cache_control.no_store = True
    return response
