"""Who may do what: signed tokens, and in development mode this very machine."""

from __future__ import annotations

import ipaddress
import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import jwt
from flask import Flask, Request, current_app, request

from sseflask.errors import Failure

__all__ = ["Access", "Caller", "require", "sign"]

log = logging.getLogger(__name__)

ALGORITHM = "HS256"
_EXTENSION = "sseflask.access"
_REALM = 'Bearer realm="sseflask"'

#: Anything that says the request came through somebody else: then a loopback peer proves nothing.
_FORWARDING = frozenset(
    [
        "forwarded",
        "via",
        "x-real-ip",
        "client-ip",
        "x-client-ip",
        "x-arr-clientip",
        "x-originating-ip",
        "x-remote-addr",
        "x-remote-ip",
        "proxy-client-ip",
        "wl-proxy-client-ip",
        "x-cluster-client-ip",
        "x-original-host",
        "x-original-url",
        "x-rewrite-url",
        "x-host",
        "x-proxyuser-ip",
        "true-client-ip",
        "cf-connecting-ip",
        "cf-ray",
        "fastly-client-ip",
        "fly-client-ip",
        "x-envoy-external-address",
        "x-request-start",
        "cdn-loop",
        "proxy-connection",
    ]
)
_HOST = re.compile(r"(?P<name>localhost|[0-9.]+|\[::1\])(?::(?P<port>[0-9]{1,5}))?\Z", re.I | re.A)
_BEARER = re.compile(r"Bearer +([\w.~+/=-]+) *\Z", re.I | re.A)
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Caller:
    """Who is asking, once that is established.

    Args:
        subject: the token's ``sub``; ``loopback`` for this machine in development mode.
        expires: when the token ends, in seconds since 1970; ``None`` for loopback. A stream
            must not outlive it.
        complete: may run completions on a real upstream.
    """

    subject: str
    expires: float | None = None
    complete: bool = False
    publish: bool = False
    subscribe: bool = False


def sign(secret: str, subject: str, expires: float, **rights: object) -> str:
    """Make a token.

    Args:
        secret: the newest of the server's secrets.
        subject: whom the token is for.
        expires: when it ends, in seconds since 1970.
        rights: claims, such as ``complete=True``.
    """
    claims = {"sub": subject, "exp": math.floor(expires), **rights}
    return jwt.encode(claims, secret, algorithm=ALGORITHM)


class Access:
    """Decides about the requests of one app. Thread-safe, never blocks.

    Args:
        secrets: what tokens may be signed with, newest first; without any, none is accepted.
        development: trust requests that this machine makes to itself (DESIGN, section 7).
    """

    def __init__(self, secrets: Sequence[str], *, development: bool = False) -> None:
        self._secrets = tuple(secrets)
        self._development = development

    def init_app(self, app: Flask) -> None:
        """Make `require` work in the app's views, and log what is open or shut."""
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

    def require(self, asked: Request, right: str) -> Caller:
        """Let the request pass, or say why not.

        Args:
            asked: the request.
            right: the name of the right, such as ``complete``.

        Raises:
            Failure: 400 for two tokens, 401 without a valid one, 403 where its rights or the
                request's origin do not suffice.
        """
        token = _presented(asked)
        if token is not None:
            caller = self._verify(token)
            if not getattr(caller, right):
                raise Failure(
                    f"This token does not carry the right {right}: ask for one that does "
                    f"(sseflask token --{right}).",
                    status=403,
                    type="permission_error",
                    code="right_missing",
                    headers={"WWW-Authenticate": f'{_REALM}, error="insufficient_scope"'},
                )
            return caller
        if self._development and _from_this_machine(asked):
            if not _same_origin(asked):
                raise Failure(
                    "Another site made the browser send this request: only pages of this server "
                    "may use it without a token.",
                    status=403,
                    type="permission_error",
                    code="cross_site",
                )
            return Caller("loopback", complete=True, publish=True, subscribe=True)
        if self._secrets:
            message = (
                "This route needs a token: send the header Authorization: Bearer <token>, or "
                "access_token in the query. The server's operator makes one with: sseflask token"
            )
        else:
            message = (
                "This route needs a token, and this server has no SSEFLASK_SECRET to check one "
                "with: its operator must set it, then make a token with: sseflask token"
            )
        raise _unauthorized(message, "token_missing", _REALM)

    def _verify(self, token: str) -> Caller:
        expired = False
        for secret in self._secrets:
            try:
                claims = jwt.decode(
                    token, secret, algorithms=[ALGORITHM], options={"require": ["exp", "sub"]}
                )
                return _caller(claims)
            except jwt.ExpiredSignatureError:
                # Only a token with a good signature gets this far: its holder may know.
                expired = True
            except (jwt.InvalidTokenError, ValueError, OverflowError):
                continue
        reason = "has expired" if expired else "is not valid"
        raise _unauthorized(
            f"The token {reason}: ask the server's operator for a new one (sseflask token).",
            "token_expired" if expired else "token_invalid",
            f'{_REALM}, error="invalid_token", error_description="The token {reason}"',
        )


def require(right: str) -> Caller:
    """`Access.require` for the current request of the current app."""
    access: Access = current_app.extensions[_EXTENSION]
    return access.require(request, right)


def require_publish(channel: str) -> Caller:
    """`Access.require` to publish to a channel."""
    del channel
    return require("publish")


def require_subscribe(patterns: Sequence[Any]) -> Caller:
    """`Access.require` to subscribe to channels."""
    del patterns
    return require("subscribe")


def _unauthorized(message: str, code: str, challenge: str) -> Failure:
    return Failure(
        message,
        status=401,
        type="authentication_error",
        code=code,
        headers={"WWW-Authenticate": challenge},
    )


def _caller(claims: dict[str, Any]) -> Caller:
    subject, expires = claims["sub"], float(claims["exp"])
    if not isinstance(subject, str) or not subject or not math.isfinite(expires):
        raise ValueError("sub or exp")
    return Caller(subject, expires, complete=claims.get("complete") is True)


def _presented(asked: Request) -> str | None:
    scheme = asked.headers.get("Authorization", "")
    in_header = scheme[:6].lower() == "bearer"
    in_query = asked.args.getlist("access_token")
    if len(in_query) + in_header > 1:
        raise Failure(
            "The request carries more than one token: send one, in the Authorization header or "
            "as access_token in the query (RFC 6750, section 2).",
            status=400,
            type="invalid_request_error",
            code="duplicate_token",
        )
    if in_query:
        return in_query[0]
    if in_header:
        found = _BEARER.match(scheme)
        # Malformed is presented all the same: it must fail, not fall back to loopback.
        return found[1] if found else ""
    return None


def _from_this_machine(asked: Request) -> bool:
    return (
        _is_loopback(_peer(asked))
        and _is_loopback_host(asked.headers.get("Host", ""))
        and not any(
            name.lower() in _FORWARDING or name.lower().startswith("x-forwarded")
            for name, _ in asked.headers
        )
    )


def _peer(asked: Request) -> str:
    # ProxyFix replaces REMOTE_ADDR with what a header claims: the peer is what it replaced.
    original: dict[str, str] = asked.environ.get("werkzeug.proxy_fix.orig", {})
    return original.get("REMOTE_ADDR") or asked.environ.get("REMOTE_ADDR") or ""


def _is_loopback(address: str) -> bool:
    try:
        peer = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(peer, "ipv4_mapped", None)
    return bool((mapped or peer).is_loopback)


def _is_loopback_host(host: str) -> bool:
    found = _HOST.match(host)
    if found is None or int(found["port"] or 80) > 65535:
        return False
    name = found["name"].lower()
    return name in ("localhost", "[::1]") or _is_loopback(name)


def _same_origin(asked: Request) -> bool:
    site, origin = asked.headers.get("Sec-Fetch-Site"), asked.headers.get("Origin")
    if site is not None and site != "same-origin":
        return False
    return origin is None or _origin(origin) == _origin(f"{asked.scheme}://{asked.host}")


def _origin(url: str) -> tuple[str, str, int | None] | None:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.path or parts.query or parts.fragment or not parts.hostname:
        return None
    return parts.scheme, parts.hostname, port or _PORTS.get(parts.scheme)
