"""The client's address and scheme, from the headers of the proxies in front."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from werkzeug.middleware.proxy_fix import ProxyFix

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


class TrustedProxies:
    """Takes ``REMOTE_ADDR`` and the scheme from the headers of so many proxies.

    Each proxy adds an entry to ``X-Forwarded-For``. Most set ``X-Forwarded-Proto``, and few add to
    it: if it has fewer entries than there are proxies, the first entry is the client's scheme.
    """

    def __init__(self, application: WSGIApplication, proxies: int) -> None:
        self._by_entries = [
            ProxyFix(application, x_for=proxies, x_proto=entries, x_host=0)
            for entries in range(1, proxies + 1)
        ]

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        schemes: str = environ.get("HTTP_X_FORWARDED_PROTO", "")
        more = min(schemes.count(","), len(self._by_entries) - 1)
        return self._by_entries[more](environ, start_response)
