"""Tokens: JSON Web Tokens (RFC 7519), signed and checked with HS256."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jwt

from sseflask.store.names import Pattern

ALGORITHM = "HS256"
#: RFC 6750, section 2.1. Some versions of PyJWT skip anything else in a signature: line breaks, for
#: instance, that a cookie must not hold.
_CHARACTERS = re.compile(r"[A-Za-z0-9._~+/=-]+")


class TokenError(ValueError):
    """The token is not valid, or was signed by this server and has ``expired``."""

    def __init__(self, expired: bool) -> None:
        super().__init__("The token has expired" if expired else "The token is not valid")
        self.expired = expired


@dataclass(frozen=True)
class Caller:
    """The sender of a request, and its rights.

    Args:
        subject: the token's ``sub``; ``loopback`` for this machine in development mode; empty if no
            token is needed.
        expires: when the rights end, in seconds since 1970; ``None`` for never. A stream must not
            outlive them.
        complete: whether it may run completions on a real upstream.
    """

    subject: str
    expires: float | None = None
    complete: bool = False
    publish: tuple[Pattern, ...] = ()
    subscribe: tuple[Pattern, ...] = ()


def sign(secret: str, subject: str, expires: float, **rights: object) -> str:
    """Make a token that ends at a time in seconds since 1970.

    The rights are claims, such as ``complete=True`` or ``publish=["orders.*"]``.
    """
    claims = {"sub": subject, "exp": math.floor(expires), **rights}
    return jwt.encode(claims, secret, algorithm=ALGORITHM)


def verify(token: str, secrets: Iterable[str]) -> Caller:
    """Read a token, which may be any text; raises `TokenError`."""
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
