"""A certificate for this machine, of an authority that only the tests know."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme

__all__ = ["Certified", "certified"]


@dataclass(frozen=True)
class Certified:
    """What a server over TLS needs, and what its clients have to know.

    Args:
        server: the server's context.
        authority: the file of the authority's certificate, for SSL_CERT_FILE.
    """

    server: ssl.SSLContext
    authority: Path


def certified(directory: Path, *names: str) -> Certified:
    """A server's certificate for these names.

    Args:
        directory: for the authority's file.
        names: by default this machine's.
    """
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*(names or ("127.0.0.1", "localhost"))).configure_cert(server)
    file = directory / "authority.pem"
    authority.cert_pem.write_to_path(str(file))
    return Certified(server, file)
