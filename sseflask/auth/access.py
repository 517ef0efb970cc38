"""The decisions: who a request's caller is, and whether the caller may."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Literal

from flask import Flask, Request, current_app

from sseflask.auth.loopback import is_from_this_machine
from sseflask.auth.presented import Presented, presented_token
from sseflask.auth.refusals import other_site, right_missing, token_missing, token_refused
from sseflask.auth.site import TO_ACT, TO_ACT_WITH_COOKIE, TO_READ, Site, site
from sseflask.auth.tokens import Caller, TokenError, verify
from sseflask.errors import Failure
from sseflask.flask_context import current_request
from sseflask.store.names import FIGURES, Pattern

__all__ = [
    "Access",
    "check_token",
    "missing_token",
    "refuse_other_sites",
    "require",
    "require_figures",
    "require_publish",
    "require_subscribe",
]

log = logging.getLogger(__name__)

#: Tokens whose signature is not looked at again.
_KNOWN_TOKENS = 256

_EXTENSION = "sseflask.access"
_EVERYTHING = (Pattern.parse("**"),)
_LOOPBACK = Caller("loopback", complete=True, publish=_EVERYTHING, subscribe=_EVERYTHING)


class Access:
    """Decides about the requests of one app. Thread-safe, never blocks.

    It knows names and patterns only, not which channels there are: its answers can't tell.

    Args:
        secrets: what tokens may be signed with, newest first; without any, none is accepted.
        development: trust requests that this machine makes to itself (DESIGN, section 7).
        public: what everybody may subscribe to.
    """

    def __init__(
        self,
        secrets: Sequence[str],
        *,
        development: bool = False,
        public: Sequence[Pattern] = (),
    ) -> None:
        self._secrets = tuple(secrets)
        # Those that are valid: to look at a signature takes as long as the rest of a publish.
        self._verify = functools.lru_cache(_KNOWN_TOKENS)(
            functools.partial(verify, secrets=self._secrets)
        )
        self._development = development
        self._public = tuple(public)

    def init_app(self, app: Flask) -> None:
        """Make `require` and its like work in the app's views, and log what is open or shut."""
        app.extensions[_EXTENSION] = self
        if self._development:
            log.warning(
                "Development mode: whoever can reach this server from this machine may use the "
                "protected routes without a token."
            )
        elif not self._secrets:
            log.warning(
                "SSEFLASK_SECRET is not set: no token is accepted, routes that need one answer "
                "401. Set it to at least 32 random bytes and make tokens with: sseflask token"
            )

    def require(
        self, asked: Request, right: Literal["complete"], *, to_read: bool = False
    ) -> Caller:
        """Let the request pass, or say why not.

        Args:
            asked: the request.
            right: the name of the right.
            to_read: it changes nothing.

        Raises:
            Failure: 400 for two tokens, 401 without a valid one, 403 where its rights or the
                request's origin do not suffice.
        """
        caller = self._reading(asked) if to_read else self._acting(asked)
        if not getattr(caller, right):
            raise right_missing(right)
        return caller

    def require_publish(self, asked: Request, channel: str) -> Caller:
        """Let the request publish to a channel, or say why not. Publishing is never public.

        Args:
            asked: the request.
            channel: a channel's name, already checked to be one.

        Raises:
            Failure: as for `require`.
        """
        caller = self._acting(asked)
        if not any(pattern.matches(channel) for pattern in caller.publish):
            raise right_missing("publish", channel)
        return caller

    def require_subscribe(self, asked: Request, patterns: Sequence[Pattern]) -> Caller:
        """Let the request subscribe to all of these, or say why not.

        Each must be within one of the token's patterns or of the public ones. Where the public
        ones suffice no token is needed, and the caller's ``expires`` is ``None``; a token that is
        presented must be valid all the same, and gives its subject.

        Args:
            asked: the request.
            patterns: names and patterns; at least one.

        Raises:
            Failure: as for `require`.
            ValueError: there are no patterns: everybody might subscribe to nothing at all.
        """
        if not patterns:
            raise ValueError("there is nothing to subscribe to")
        presented = presented_token(asked)
        public = _cover(self._public, patterns)
        if public and (presented is None or (presented.by_cookie and site(asked) is Site.OTHER)):
            return Caller("", subscribe=self._public)
        caller = self._identify(asked, presented, TO_READ, TO_READ)
        if public:
            return replace(caller, expires=None)
        for pattern in patterns:
            if not _cover((*self._public, *caller.subscribe), [pattern]):
                raise right_missing("subscribe", str(pattern))
        return caller

    def require_figures(self, asked: Request) -> None:
        """Let the request read the service's figures, or say why not.

        It needs a token with which the channel of the figures can be read. That this channel is
        public opens nothing here. In production no request of this machine is trusted: a proxy on
        it may pass on anybody's without a sign of it.

        Raises:
            Failure: as for `require`.
        """
        caller = self._reading(asked)
        if not any(pattern.matches(FIGURES) for pattern in caller.subscribe):
            raise right_missing("subscribe", FIGURES)

    def check(self, token: str, *, by_cookie: bool = False) -> Caller:
        """Read a token.

        Args:
            token: any text.
            by_cookie: it came in the session cookie; changes the words of the refusal.

        Raises:
            Failure: 401, it is not valid or has expired.
        """
        try:
            caller = self._verify(token)
            if caller.expires is not None and int(caller.expires) <= time.time():
                raise TokenError(True)
            return caller
        except TokenError as error:
            raise token_refused(expired=error.expired, by_cookie=by_cookie) from None

    def missing(self) -> Failure:
        """The 401 for a request that carries no token."""
        return token_missing(checkable=bool(self._secrets))

    def _reading(self, asked: Request) -> Caller:
        return self._identify(asked, presented_token(asked), TO_READ, TO_READ)

    def _acting(self, asked: Request) -> Caller:
        return self._identify(asked, presented_token(asked), TO_ACT, TO_ACT_WITH_COOKIE)

    def _identify(
        self,
        asked: Request,
        presented: Presented | None,
        with_loopback: AbstractSet[Site],
        with_cookie: AbstractSet[Site],
    ) -> Caller:
        if presented is not None:
            if presented.by_cookie:
                _refuse_all_but(with_cookie, asked)
            return self.check(presented.token, by_cookie=presented.by_cookie)
        if self._development and is_from_this_machine(asked):
            _refuse_all_but(with_loopback, asked)
            return _LOOPBACK
        raise self.missing()


def require(right: Literal["complete"], *, to_read: bool = False) -> Caller:
    """`Access.require` for the current request of the current app."""
    return _access().require(current_request(), right, to_read=to_read)


def require_publish(channel: str) -> Caller:
    """`Access.require_publish` for the current request of the current app."""
    return _access().require_publish(current_request(), channel)


def require_subscribe(patterns: Sequence[Pattern]) -> Caller:
    """`Access.require_subscribe` for the current request of the current app."""
    return _access().require_subscribe(current_request(), patterns)


def require_figures() -> None:
    """`Access.require_figures` for the current request of the current app."""
    _access().require_figures(current_request())


def check_token(token: str) -> Caller:
    """`Access.check` of the current app."""
    return _access().check(token)


def missing_token() -> Failure:
    """`Access.missing` of the current app."""
    return _access().missing()


def refuse_other_sites() -> None:
    """Let the current request pass unless the browser says that another site is behind it.

    Raises:
        Failure: 403.
    """
    _refuse_all_but(TO_ACT, current_request())


def _access() -> Access:
    access: Access = current_app.extensions[_EXTENSION]
    return access


def _refuse_all_but(allowed: AbstractSet[Site], asked: Request) -> None:
    found = site(asked)
    if found not in allowed:
        raise other_site(known=found is not Site.UNKNOWN)


def _cover(rights: Sequence[Pattern], patterns: Sequence[Pattern]) -> bool:
    return all(any(right.covers(pattern) for right in rights) for pattern in patterns)
