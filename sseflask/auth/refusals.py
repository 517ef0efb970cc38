"""The refusals: 401 and 403, with the challenge of RFC 6750."""

from __future__ import annotations

from sseflask.errors import Failure

_REALM = 'Bearer realm="sseflask"'


def token_missing(*, checkable: bool) -> Failure:
    """A 401 for a request without a token.

    Args:
        checkable: the server has a secret to check one with.
    """
    if checkable:
        message = (
            "This route needs a token: send the header Authorization: Bearer <token>, or "
            "access_token in the query. The server's operator makes one with: sseflask token"
        )
    else:
        message = (
            "This route needs a token, and this server has no SSEFLASK_SECRET to check one "
            "with: its operator must set it, then make a token with: sseflask token"
        )
    return _unauthorized(message, "token_missing", _REALM)


def token_refused(*, expired: bool, by_cookie: bool) -> Failure:
    """A 401 for a token that is not accepted; the same words whichever check it failed.

    Args:
        expired: it was signed by this server.
        by_cookie: it was in the cookie, which the browser sends again until it is deleted.
    """
    reason = "has expired" if expired else "is not valid"
    advice = "ask the server's operator for a new one (sseflask token)."
    if by_cookie:
        message = (
            f"The token in the session cookie {reason}: clear the cookie with DELETE /session, "
            f"or {advice}"
        )
    else:
        message = f"The token {reason}: {advice}"
    return _unauthorized(
        message,
        "token_expired" if expired else "token_invalid",
        f'{_REALM}, error="invalid_token", error_description="The token {reason}"',
    )


def right_missing(right: str, what: str = "") -> Failure:
    """A 403 for a valid token that does not suffice.

    Args:
        right: its name in the token and on the command line.
        what: the channel or pattern of the request; the answer does not depend on whether
            such a channel exists.
    """
    lacking = f"the right {right}" + (f" for {what}" if what else "")
    option = f"--{right}" + (f" '{what}'" if what else "")
    return Failure(
        f"This token does not carry {lacking}: ask for one that does (sseflask token {option}).",
        status=403,
        type="permission_error",
        code="right_missing",
        headers={"WWW-Authenticate": f'{_REALM}, error="insufficient_scope"'},
    )


def other_site(*, known: bool) -> Failure:
    """A 403 for a request that a page of another site may have sent.

    Args:
        known: the browser says that it was no page of this server.
    """
    if known:
        message = (
            "The browser says that no page of this server sent this request: only those may do so "
            "without a token of their own."
        )
    else:
        message = (
            "The session cookie alone does not show that a page of this server sent this request: "
            "send Origin or Sec-Fetch-Site as browsers do, or the token in an Authorization header."
        )
    return Failure(message, status=403, type="permission_error", code="cross_site")


def _unauthorized(message: str, code: str, challenge: str) -> Failure:
    return Failure(
        message,
        status=401,
        type="authentication_error",
        code=code,
        headers={"WWW-Authenticate": challenge},
    )
