"""Whose page made the browser send a request, as far as the browser says."""

from __future__ import annotations

import enum

from flask import Request

from sseflask.web.origins import parse_origin

__all__ = ["TO_ACT", "TO_ACT_WITH_COOKIE", "TO_READ", "Site", "site"]


class Site(enum.Enum):
    """Who stands behind a request, by its ``Sec-Fetch-Site`` and ``Origin``."""

    #: A page of this server.
    OWN = enum.auto()
    #: Nobody's page: an address that somebody typed, a bookmark.
    USER = enum.auto()
    #: Another site's page, be it only a neighbour under the same domain.
    OTHER = enum.auto()
    #: Neither header: no browser, an old one, or one that talks plain HTTP.
    UNKNOWN = enum.auto()


#: Publishing, running, stopping, opening a session: who may have it done without saying so.
TO_ACT = frozenset({Site.OWN, Site.UNKNOWN})
#: The same where the browser adds the proof by itself.
TO_ACT_WITH_COOKIE = frozenset({Site.OWN})
#: Reading changes nothing, and what another site's page reads never gets to it: responses to
#: requests with credentials carry no CORS header. Over plain HTTP a page's own GET has neither
#: header.
TO_READ = frozenset({Site.OWN, Site.USER, Site.UNKNOWN})


def site(asked: Request) -> Site:
    """Whose page is behind a request; where the two headers disagree, another's.

    ``Sec-Fetch-Site`` is told by Fetch Metadata (W3C), ``Origin`` by RFC 6454.
    """
    fetch_site, origin = asked.headers.get("Sec-Fetch-Site"), asked.headers.get("Origin")
    if origin is not None and not _is_own(origin, asked):
        return Site.OTHER
    if fetch_site is None:
        return Site.UNKNOWN if origin is None else Site.OWN
    return {"same-origin": Site.OWN, "none": Site.USER}.get(fetch_site, Site.OTHER)


def _is_own(origin: str, asked: Request) -> bool:
    try:
        return parse_origin(origin) == parse_origin(f"{asked.scheme}://{asked.host}")
    except ValueError:
        return False
