"""Which site's page sent a request, by what the browser says."""

from __future__ import annotations

import enum

from flask import Request

from sseflask.web.origins import parse_origin


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
