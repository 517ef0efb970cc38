"""Whether a request was made on this machine."""

from __future__ import annotations

import functools
import ipaddress
import re

from flask import Request

#: Headers of proxies: with one of them, a loopback peer proves nothing.
_FORWARDED = re.compile(
    r"x-forwarded.*|forwarded|via|x-real-ip|(x-)?client-ip|x-arr-clientip|x-originating-ip"
    r"|x-remote-(addr|ip)|(wl-)?proxy-client-ip|x-cluster-client-ip|x-original-(host|url)"
    r"|x-rewrite-url|x-host|x-proxyuser-ip|true-client-ip|cf-connecting-ip|cf-ray"
    r"|(fastly|fly)-client-ip|x-envoy-external-address|x-request-start|cdn-loop|proxy-connection",
    re.I | re.A,
)
_HOST = re.compile(r"(?P<name>localhost|[0-9.]+|\[::1\])(?::(?P<port>[0-9]{1,5}))?\Z", re.I | re.A)


def is_from_this_machine(request: Request) -> bool:
    """Whether the peer is a loopback address, ``Host`` a loopback name, and no proxy has a header.

    Behind a proxy that adds no header this is no proof: for development only.
    """
    return (
        _is_loopback(_peer(request))
        and _is_loopback_host(request.headers.get("Host", ""))
        and not any(_FORWARDED.fullmatch(name) for name, _ in request.headers)
    )


def _peer(request: Request) -> str:
    # ProxyFix replaces REMOTE_ADDR with what a header claims: the peer is what it replaced.
    original: dict[str, str] = request.environ.get("werkzeug.proxy_fix.orig", {})
    return original.get("REMOTE_ADDR") or request.environ.get("REMOTE_ADDR") or ""


@functools.lru_cache(maxsize=256)
def _is_loopback(address: str) -> bool:
    try:
        peer = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(peer, "ipv4_mapped", None)
    return bool((mapped or peer).is_loopback)


@functools.lru_cache(maxsize=256)
def _is_loopback_host(host: str) -> bool:
    found = _HOST.match(host)
    if found is None or int(found["port"] or 80) > 65535:
        return False
    name = found["name"].lower()
    return name in ("localhost", "[::1]") or _is_loopback(name)
