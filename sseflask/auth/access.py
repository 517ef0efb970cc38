"""Decides whose request this is, and whether its caller has the right that the route needs."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

from flask import Flask, Request, current_app

from sseflask import flask_context
from sseflask.auth.presented import Presented, presented_token
from sseflask.auth.sender import (
    TO_ACT,
    TO_ACT_WITH_COOKIE,
    TO_READ,
    Site,
    is_from_this_machine,
    site,
)
from sseflask.auth.tokens import Caller, TokenError, verify
from sseflask.errors import Failure
from sseflask.flask_context import current_request
from sseflask.store.names import FIGURES, Pattern

log = logging.getLogger(__name__)

#: Tokens whose signature is not checked again: a check takes as long as the rest of a publish.
_CACHED_TOKENS = 256

#: Decisions that are remembered: many clients have the same rights, and want the same.
_CACHED_DECISIONS = 1024

_EXTENSION = "sseflask.access"
_REALM = 'Bearer realm="sseflask"'
_EVERYTHING = (Pattern.parse("**"),)
_LOOPBACK = Caller("loopback", complete=True, publish=_EVERYTHING, subscribe=_EVERYTHING)


class Access:
    """What the decisions of one app depend on. Thread-safe, never blocks.

    It knows names and patterns only, not which channels exist: a refusal does not reveal that.

    Args:
        secrets: any of them may have signed a token; without any, no token is accepted.
        development: trust requests that this machine makes to itself.
        public: the channels that everybody may subscribe to.
    """

    def __init__(
        self,
        secrets: Sequence[str],
        *,
        development: bool = False,
        public: Sequence[Pattern] = (),
    ) -> None:
        self.has_secret = bool(secrets)
        self.development = development
        self.public = tuple(public)
        self._anyone = Caller("", subscribe=self.public)
        self.verify = functools.lru_cache(_CACHED_TOKENS)(
            functools.partial(verify, secrets=tuple(secrets))
        )

    def subscriber(self, token: str | None, patterns: Sequence[Pattern]) -> Caller | None:
        """Who subscribes to these with a token that was sent, or without one, and no cookie.

        ``None`` if `require_subscribe` would refuse, or has to look at the rest of the request.
        """
        public = _cover(self.public, tuple(patterns))
        if token is None:
            return self._anyone if public else None
        try:
            caller = self.current(token)
        except TokenError:
            return None
        if public:
            return replace(caller, expires=None)
        rights = (*self.public, *caller.subscribe)
        return caller if _cover(rights, tuple(patterns)) else None

    def current(self, token: str) -> Caller:
        """The caller that a token names now; TokenError if it is not valid or has expired."""
        caller = self.verify(token)
        if caller.expires is not None and int(caller.expires) <= time.time():
            raise TokenError(True)
        return caller

    def init_app(self, app: Flask) -> None:
        """Make the functions below work in the app's views; log what is open."""
        app.extensions[_EXTENSION] = self
        if self.development:
            log.warning(
                "Development mode: whoever can reach this server from this machine may use the "
                "protected routes without a token."
            )
        elif not self.has_secret:
            log.warning(
                "SSEFLASK_SECRET is not set: no token is accepted, routes that need one answer "
                "401. Set it to at least 32 random bytes and make tokens with: sseflask token"
            )


def require_complete(*, to_read: bool = False) -> Caller:
    """The caller of the current request. It must have the right to run completions.

    A request ``to_read`` changes nothing. Raises 400 for two tokens, 401 without a valid one, 403
    if its rights or the request's origin do not suffice.
    """
    caller = _reader() if to_read else _actor()
    if not caller.complete:
        raise _right_missing("complete")
    return caller


def require_publish(channel: str) -> Caller:
    """The caller of the current request. It must have the right to publish to a channel.

    Publishing is never public. Raises as `require_complete` does.
    """
    caller = _actor()
    if not any(pattern.matches(channel) for pattern in caller.publish):
        raise _right_missing("publish", channel)
    return caller


def require_subscribe(patterns: Sequence[Pattern]) -> Caller:
    """The caller of the current request. It must have the right to subscribe to all of these.

    Each must be covered by a pattern of the token or by a public one. If the public ones suffice,
    no token is needed, and the caller's ``expires`` is ``None``; a token that is presented must be
    valid all the same, and gives the subject.

    Raises:
        Failure: as for `require_complete`.
        ValueError: there are no patterns: everybody might subscribe to nothing at all.
    """
    if not patterns:
        raise ValueError("there is nothing to subscribe to")
    request, always = current_request(), _access().public
    presented = presented_token(request)
    public = _cover(always, tuple(patterns))
    if public and (presented is None or (presented.by_cookie and site(request) is Site.OTHER)):
        return Caller("", subscribe=always)
    caller = _identify(presented, TO_READ, TO_READ)
    if public:
        return replace(caller, expires=None)
    for pattern in patterns:
        if not _cover((*always, *caller.subscribe), (pattern,)):
            raise _right_missing("subscribe", str(pattern))
    return caller


def require_figures() -> None:
    """Check that the caller of the current request may read the service's figures.

    It takes a token with the right to subscribe to the figures' channel, even if this channel is
    public. In production no request of this machine is trusted: a proxy on it may pass on requests
    of anybody without a header. Raises as `require_complete` does.
    """
    if not any(pattern.matches(FIGURES) for pattern in _reader().subscribe):
        raise _right_missing("subscribe", FIGURES)


def check_token(token: str, *, by_cookie: bool = False) -> Caller:
    """The caller that a token names; 401 if it is not valid or has expired.

    The words are the same whichever check it failed. A browser sends a token ``by_cookie`` again
    until the cookie is deleted.
    """
    try:
        return _access().current(token)
    except TokenError as error:
        expired = error.expired
    reason = "has expired" if expired else "is not valid"
    advice = "ask the server's operator for a new one (sseflask token)."
    if by_cookie:
        message = (
            f"The token in the session cookie {reason}: clear the cookie with DELETE /session, "
            f"or {advice}"
        )
    else:
        message = f"The token {reason}: {advice}"
    raise _unauthorized(
        message,
        "token_expired" if expired else "token_invalid",
        f'{_REALM}, error="invalid_token", error_description="The token {reason}"',
    )


def missing_token() -> Failure:
    if _access().has_secret:
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


def _unauthorized(message: str, code: str, challenge: str) -> Failure:
    return Failure(
        message,
        status=401,
        type="authentication_error",
        code=code,
        headers={"WWW-Authenticate": challenge},
    )


def _right_missing(right: str, what: str = "") -> Failure:
    """A 403 for a valid token; the same whether or not the channel of the request exists."""
    lacking = f"the right {right}" + (f" for {what}" if what else "")
    option = f"--{right}" + (f" '{what}'" if what else "")
    return Failure(
        f"This token does not carry {lacking}: ask for one that does (sseflask token {option}).",
        status=403,
        type="permission_error",
        code="right_missing",
        headers={"WWW-Authenticate": f'{_REALM}, error="insufficient_scope"'},
    )


def refuse_other_sites() -> None:
    """Refuse the current request, with 403, if a page of another site has sent it."""
    _check_site(TO_ACT, current_request())


def _access() -> Access:
    access: Access = (flask_context.current_app() or current_app).extensions[_EXTENSION]
    return access


def _reader() -> Caller:
    return _identify(presented_token(current_request()), TO_READ, TO_READ)


def _actor() -> Caller:
    return _identify(presented_token(current_request()), TO_ACT, TO_ACT_WITH_COOKIE)


def _identify(
    presented: Presented | None, with_loopback: AbstractSet[Site], with_cookie: AbstractSet[Site]
) -> Caller:
    request = current_request()
    if presented is not None:
        if presented.by_cookie:
            _check_site(with_cookie, request)
        return check_token(presented.token, by_cookie=presented.by_cookie)
    if _access().development and is_from_this_machine(request):
        _check_site(with_loopback, request)
        return _LOOPBACK
    raise missing_token()


def _check_site(allowed: AbstractSet[Site], request: Request) -> None:
    found = site(request)
    if found in allowed:
        return
    if found is Site.UNKNOWN:
        message = (
            "The session cookie alone does not show that a page of this server sent this request: "
            "send Origin or Sec-Fetch-Site as browsers do, or the token in an Authorization header."
        )
    else:
        message = (
            "The browser says that no page of this server sent this request: only those may do so "
            "without a token of their own."
        )
    raise Failure(message, status=403, type="permission_error", code="cross_site")


@functools.lru_cache(_CACHED_DECISIONS)
def _cover(rights: tuple[Pattern, ...], patterns: tuple[Pattern, ...]) -> bool:
    return all(any(right.covers(pattern) for right in rights) for pattern in patterns)
