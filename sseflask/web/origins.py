"""Origins, as browsers send them (RFC 6454): scheme, host and port. No Flask, no I/O."""

from __future__ import annotations

import re

_ORIGIN = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<host>[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?",
    re.IGNORECASE | re.ASCII,
)
_DEFAULT_PORTS = {"http": 80, "https": 443}


def parse_origin(text: str) -> str:
    """An origin as browsers send it: lower case, without a default port; or a ValueError."""
    found = _ORIGIN.fullmatch(text)
    port = int(found["port"]) if found and found["port"] else None
    if found is None or (port is not None and not 1 <= port <= 65_535):
        raise ValueError(
            "an origin is written https://example.org or http://127.0.0.1:3000, without a path, a "
            "final slash or a user name"
        )
    scheme, host = found["scheme"].lower(), found["host"].lower()
    if port is None or port == _DEFAULT_PORTS.get(scheme):
        return f"{scheme}://{host}"
    return f"{scheme}://{host}:{port}"
