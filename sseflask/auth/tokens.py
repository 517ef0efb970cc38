"""Tokens: what they say, how they are signed and checked. JSON Web Tokens (RFC 7519), HS256."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jwt

from sseflask.store.names import Pattern

__all__ = ["Caller", "TokenError", "sign", "verify"]

ALGORITHM = "HS256"
#: RFC 6750, section 2.1. Some versions of PyJWT skip anything else in a signature: line breaks, for
#: instance, that a cookie must not hold.
_CHARACTERS = re.compile(r"[A-Za-z0-9._~+/=-]+")


class TokenError(ValueError):
    """The token is not one of ours, or no longer.

    Args:
        expired: it was signed by us, and has ended: its holder may know.
    """

    def __init__(self, expired: bool) -> None:
        super().__init__("The token has expired" if expired else "The token is not valid")
        self.expired = expired


@dataclass(frozen=True)
class Caller:
    """Who is asking, once that is established.

    Args:
        subject: the token's ``sub``; ``loopback`` for this machine in development mode; empty for
            whoever needs no token.
        expires: when the right ends, in seconds since 1970; ``None`` for never. A stream must not
            outlive it.
        complete: may run completions on a real upstream.
        publish: may publish to the channels that these mean.
        subscribe: may subscribe to the channels that these mean.
    """

    subject: str
    expires: float | None = None
    complete: bool = False
    publish: tuple[Pattern, ...] = ()
    subscribe: tuple[Pattern, ...] = ()


def sign(secret: str, subject: str, expires: float, **rights: object) -> str:
    """Make a token.

    Args:
        secret: the newest of the server's secrets.
        subject: whom the token is for.
        expires: when it ends, in seconds since 1970.
        rights: claims, such as ``complete=True`` or ``publish=["orders.*"]``.
    """
    claims = {"sub": subject, "exp": math.floor(expires), **rights}
    return jwt.encode(claims, secret, algorithm=ALGORITHM)


def verify(token: str, secrets: Iterable[str]) -> Caller:
    """Read a token.

    Args:
        token: any text.
        secrets: what it may have been signed with.

    Raises:
        TokenError: no secret has signed it, it has ended, or a claim makes no sense.
    """
    expired = False
    for secret in secrets if _CHARACTERS.fullmatch(token) else ():
        try:
            claims = jwt.decode(
                token, secret, algorithms=[ALGORITHM], options={"require": ["exp", "sub"]}
            )
            return _caller(claims)
        except jwt.ExpiredSignatureError:
            expired = True
        except (jwt.InvalidTokenError, ValueError, TypeError, OverflowError, RecursionError):
            # Some versions of PyJWT let the errors of the JSON decoder and of int() through.
            continue
    raise TokenError(expired)


def _caller(claims: dict[str, Any]) -> Caller:
    subject, expires = claims["sub"], float(claims["exp"])
    if not isinstance(subject, str) or not subject or not math.isfinite(expires):
        raise ValueError("sub or exp")
    return Caller(
        subject,
        expires,
        complete=claims.get("complete") is True,
        publish=_patterns(claims.get("publish", ())),
        subscribe=_patterns(claims.get("subscribe", ())),
    )


def _patterns(claim: object) -> tuple[Pattern, ...]:
    if isinstance(claim, str):
        claim = (claim,)
    if not isinstance(claim, Sequence):
        raise TypeError("publish or subscribe")
    return tuple(Pattern.parse(text) for text in claim)
