"""The types of settings that are not plain numbers or texts."""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import Annotated, Any
from urllib.parse import urlsplit

import idna
from pydantic import AfterValidator, BeforeValidator, SecretStr
from pydantic_settings import NoDecode

from sseflask.store.names import Pattern
from sseflask.store.redis.url import parse
from sseflask.web.origins import parse_origin

#: HS256 signs with SHA-256: a shorter key is weaker than the signature (RFC 7518, section 3.2).
SECRET_BYTES = 32

_RATE = re.compile(r"[1-9][0-9]{0,8}/(?:second|minute|hour|day)\Z", re.ASCII)

#: Routes that operators mistake for a part of the base URL.
_ROUTE = re.compile(r"(/chat/completions|/responses)/?\Z")


def _split(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _long_enough(value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    if any(len(secret.get_secret_value().encode()) < SECRET_BYTES for secret in value):
        raise ValueError(
            f"each secret needs at least {SECRET_BYTES} bytes, for example the output of: "
            'python -c "import secrets; print(secrets.token_urlsafe(32))"'
        )
    return value


def _fits_a_header(value: SecretStr) -> SecretStr:
    key = value.get_secret_value()
    if not key.isascii() or not key.isprintable() or key != key.strip():
        raise ValueError("a key is printable ASCII without spaces or line breaks around it")
    return value


def _is_web_address(value: str) -> str:
    if any(c.isspace() or not c.isprintable() for c in value):
        raise ValueError("it must not have a space or line break")
    try:
        address = urlsplit(value)
        port = address.port
        host = address.hostname or ""
        # As the resolver encodes it at each request: labels may be neither empty nor long.
        (host if host.isascii() else idna.encode(host, uts46=True).decode()).encode("idna")
    except ValueError as error:
        reason = "its port must be a number from 1 to 65535"
        raise ValueError(reason if "ort" in str(error) else "its host is not valid") from None
    if port == 0:
        raise ValueError("its port must be a number from 1 to 65535")
    if address.scheme not in ("http", "https") or not host:
        raise ValueError("it must begin with http:// or https:// and name a host")
    if "@" in address.netloc:
        raise ValueError("it must not have a user name or password")
    if "#" in value:
        raise ValueError("a fragment (#...) is never sent: leave it out")
    route = _ROUTE.search(address.path)
    if route:
        raise ValueError(f"{route[1]} is added to it: leave that out")
    return value


def _are_patterns(value: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(str(Pattern.parse(text)) for text in value)


def _are_origins(value: tuple[str, ...]) -> tuple[str, ...]:
    if value == ("*",):
        return value
    if "*" in value:
        raise ValueError("* means all origins, and must then be alone")
    return tuple(parse_origin(text) for text in value)


def _is_a_redis_server(value: SecretStr) -> SecretStr:
    # gunicorn's master reads settings before gevent patches: redis-py must not be imported here.
    if find_spec("redis") is None:
        raise ValueError("it needs redis-py: pip install 'sseflask[redis]'")
    url = value.get_secret_value().strip()  # a secret that is read from a file ends with a line
    parse(url)
    return SecretStr(url)


def _is_a_rate(value: str) -> str:
    if value != "off" and not _RATE.match(value):
        raise ValueError("it must be like 10/minute, or off")
    return value


#: Signing secrets, comma-separated.
Secrets = Annotated[
    tuple[SecretStr, ...], NoDecode, BeforeValidator(_split), AfterValidator(_long_enough)
]
#: The value of an ``Authorization`` header.
Key = Annotated[SecretStr, AfterValidator(_fits_a_header)]
#: A base URL of requests.
WebAddress = Annotated[str, AfterValidator(_is_web_address)]
#: The URL of a Redis or Valkey server; it may have a password.
RedisURL = Annotated[SecretStr, AfterValidator(_is_a_redis_server)]
#: Names and patterns of channels, comma-separated.
Patterns = Annotated[
    tuple[str, ...], NoDecode, BeforeValidator(_split), AfterValidator(_are_patterns)
]
#: Origins as browsers send them, comma-separated; or ``*``.
Origins = Annotated[
    tuple[str, ...], NoDecode, BeforeValidator(_split), AfterValidator(_are_origins)
]
#: A rate.
RateLimit = Annotated[str, AfterValidator(_is_a_rate)]
