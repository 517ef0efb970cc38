"""The proxy, the certificates and the headers of the environment, for requests to the upstream.

Checked at the start, also by gunicorn's arbiter: nothing but the standard library is imported.
"""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from sseflask.errors import ConfigError

#: Variables that OpenAI's client sends as headers, beside OPENAI_CUSTOM_HEADERS.
HEADERS = ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID")

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_SECRET = re.compile(r"(?i)auth|key|token|secret|cookie|password")
_FRAMING = ("content-length", "transfer-encoding", "connection", "te", "upgrade", "expect")
_CERTIFICATES = "unset it for the system's own certificates"
#: How OpenSSL's `openssl rehash` names the files of a directory.
_HASHED = re.compile(r"[0-9a-f]{8}\.[0-9]+\Z")


@dataclass(frozen=True)
class Outbound:
    """How an upstream is reached.

    Args:
        proxy: the URL of an HTTP proxy, which may hold a password; ``None`` for none.
        cafile: a file of the authorities' certificates, instead of the system's.
        capath: a directory of them.
    """

    proxy: str | None = None
    cafile: str | None = None
    capath: str | None = None

    @classmethod
    def from_environment(cls, url: str) -> Outbound:
        """How a URL is reached, by ``HTTPS_PROXY``, ``SSL_CERT_FILE`` and similar variables.

        Reads the files that they name. Variables that do not concern this URL are ignored.

        Raises:
            ConfigError: one line that names the variable and what it may be.
        """
        address = urlsplit(url)
        proxy = _proxy(address)
        if address.scheme != "https" and not (proxy or "").lower().startswith("https:"):
            return cls(proxy)
        for name, kind in (("SSL_CERT_FILE", "cafile"), ("SSL_CERT_DIR", "capath")):
            if path := os.environ.get(name):
                _check_certificates(name, path, kind)
                return cls(proxy, **{kind: path})
        return cls(proxy)


def check_headers() -> None:
    """Raise `ConfigError` if a variable that OpenAI's client sends as a header can't be sent."""
    for name in HEADERS:
        if not _is_header_value(os.environ.get(name, "")):
            raise ConfigError(
                f"{name} is not allowed: it is sent as a header, so it must be printable ASCII "
                "without spaces or line breaks around it"
            )
    for name, value in _custom_headers():
        if not _TOKEN.match(name) or not _is_header_value(value) or name.lower() in _FRAMING:
            # A value may be a key: it is not repeated.
            raise ConfigError(
                "OPENAI_CUSTOM_HEADERS is not allowed: each line is a header of printable ASCII, "
                "as in X-Team: research, and none that says how long a request is"
            )


def secret_headers() -> tuple[str, ...]:
    """The values of ``OPENAI_CUSTOM_HEADERS`` whose names say that they are secret."""
    return tuple(
        value.removeprefix("Bearer ") for name, value in _custom_headers() if _SECRET.search(name)
    )


def _custom_headers() -> list[tuple[str, str]]:
    """As OpenAI's client reads them: a header on each line."""
    lines = os.environ.get("OPENAI_CUSTOM_HEADERS", "").split("\n")
    split = (line.partition(":") for line in lines)
    return [(name.strip(), value.strip()) for name, colon, value in split if colon]


def _is_header_value(value: str) -> bool:
    return value.isascii() and (not value or value.isprintable()) and value == value.strip()


def _proxy(address: SplitResult) -> str | None:
    found = _variable(f"{address.scheme}_proxy") or _variable("all_proxy")
    if found is None or _bypassed(address):
        return None
    name, value = found
    url = value if "://" in value else f"http://{value}"
    # The value may hold a password: it is not repeated.
    rule = (
        f"{name} is not allowed: the upstream is reached through an HTTP proxy only, as in "
        f"{name}=http://proxy.example:3128; mend it, unset it, or name the upstream's host in "
        "NO_PROXY"
    )
    try:
        parts = urlsplit(url)
        usable = parts.port != 0 and parts.scheme in ("http", "https") and bool(parts.hostname)
        (parts.hostname or "").encode("idna")
    except ValueError:
        usable = False
    if not usable or not url.isascii() or not url.isprintable() or " " in url:
        raise ConfigError(rule)
    return url


def _variable(name: str) -> tuple[str, str] | None:
    """The name and value of a variable in lower or upper case; in CGI the lower one is safer."""
    for each in (name, name.upper()):
        value = os.environ.get(each, "").strip()
        if value and not (each == "HTTP_PROXY" and "REQUEST_METHOD" in os.environ):
            return each, value
    return None


def _bypassed(address: SplitResult) -> bool:
    """Whether ``NO_PROXY`` names a host, in any of the usual spellings. Never fails."""
    found = _variable("no_proxy")
    host = (address.hostname or "").lower()
    for part in re.split(r"[,\s]+", found[1].lower()) if found else ():
        name = part.partition("://")[2] or part
        if name == "*" or _in_network(host, name):
            return True
        port = ""
        if name.startswith("["):
            name, _, port = name[1:].partition("]")
        elif name.count(":") == 1:
            name, _, port = name.partition(":")
        default = 443 if address.scheme == "https" else 80
        if port.strip(":") not in ("", str(address.port or default)):
            continue
        name = name.removeprefix("*").removeprefix(".")
        if name and (host == name or host.endswith(f".{name}")):
            return True
    return False


def _in_network(host: str, network: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def _check_certificates(name: str, value: str, kind: str) -> None:
    import ssl

    problem = f"{name}={value!r} can't be used"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(**{kind: value})
        hashed = kind == "cafile" or any(
            _HASHED.match(each.name)
            for path in value.split(os.pathsep)
            if path
            for each in Path(path).iterdir()
        )
    except OSError as error:
        reason = error.strerror or "it holds no certificate"
        if isinstance(error, ssl.SSLError):
            reason = "it holds no certificate in PEM form"
        raise ConfigError(f"{problem}: {reason[:1].lower()}{reason[1:]}; {_CERTIFICATES}") from None
    if not hashed:
        raise ConfigError(
            f"{problem}: no certificate in it has a name that OpenSSL finds (run: openssl rehash "
            f"{value}); {_CERTIFICATES}"
        )
