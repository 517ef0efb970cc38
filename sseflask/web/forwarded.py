"""The client's address and scheme, as the proxies in front say them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from werkzeug.middleware.proxy_fix import ProxyFix

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["TrustedProxies"]


class TrustedProxies:
    """An application, with ``REMOTE_ADDR`` and the scheme from so many proxies' headers.

    Each proxy adds an entry to ``X-Forwarded-For``. To ``X-Forwarded-Proto`` few do: most set it.
    So fewer entries than proxies are all the proxies' own, and the first of them is the client's.

    Args:
        application: what is called.
        proxies: how many there are, 1 or more.
    """

    def __init__(self, application: WSGIApplication, proxies: int) -> None:
        self._by_entries = [
            ProxyFix(application, x_for=proxies, x_proto=entries, x_host=0)
            for entries in range(1, proxies + 1)
        ]

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        said: str = environ.get("HTTP_X_FORWARDED_PROTO", "")
        more = min(said.count(","), len(self._by_entries) - 1)
        return self._by_entries[more](environ, start_response)
