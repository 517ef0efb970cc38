"""Where a request comes from: which site's page, by what the browser says, or this machine."""

from __future__ import annotations

import enum
import functools
import ipaddress
import re

from flask import Request

from sseflask.web.origins import parse_origin

#: Headers of proxies: with one of them, a loopback peer proves nothing.
_FORWARDED = re.compile(
    r"x-forwarded.*|forwarded|via|x-real-ip|(x-)?client-ip|x-arr-clientip|x-originating-ip"
    r"|x-remote-(addr|ip)|(wl-)?proxy-client-ip|x-cluster-client-ip|x-original-(host|url)"
    r"|x-rewrite-url|x-host|x-proxyuser-ip|true-client-ip|cf-connecting-ip|cf-ray"
    r"|(fastly|fly)-client-ip|x-envoy-external-address|x-request-start|cdn-loop|proxy-connection",
    re.I | re.A,
)
_HOST = re.compile(r"(?P<name>localhost|[0-9.]+|\[::1\])(?::(?P<port>[0-9]{1,5}))?\Z", re.I | re.A)


class Site(enum.Enum):
    """The site of a request, by its ``Sec-Fetch-Site`` and ``Origin``."""

    #: A page of this server.
    OWN = enum.auto()
    #: No page: a typed address, a bookmark.
    USER = enum.auto()
    #: A page of another site; another host of the same domain is one.
    OTHER = enum.auto()
    #: Neither header: no browser, an old one, or plain HTTP.
    UNKNOWN = enum.auto()


#: The sites that may publish, run, stop and open a session.
TO_ACT = frozenset({Site.OWN, Site.UNKNOWN})
#: The same if the right comes from the cookie, which the browser adds by itself.
TO_ACT_WITH_COOKIE = frozenset({Site.OWN})
#: The sites that may read: that changes nothing. Browsers give another site's page no response to
#: a request with credentials, as it has no CORS header. Over plain HTTP a page's GET to its own
#: server has neither header.
TO_READ = frozenset({Site.OWN, Site.USER, Site.UNKNOWN})


def site(request: Request) -> Site:
    """The site of a request; if the two headers disagree, another one.

    ``Sec-Fetch-Site`` is defined by Fetch Metadata (W3C), ``Origin`` by RFC 6454.
    """
    fetch_site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if origin is not None and not _is_own(origin, request):
        return Site.OTHER
    if fetch_site is None:
        return Site.UNKNOWN if origin is None else Site.OWN
    return {"same-origin": Site.OWN, "none": Site.USER}.get(fetch_site, Site.OTHER)


def _is_own(origin: str, request: Request) -> bool:
    try:
        return parse_origin(origin) == parse_origin(f"{request.scheme}://{request.host}")
    except ValueError:
        return False


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
