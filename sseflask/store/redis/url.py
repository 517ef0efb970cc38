"""What a URL of a Redis server says. Without redis-py, so that gunicorn's master can check it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

#: Beginnings of keys, unless the URL has its own.
_PREFIX = "sseflask"

#: What the words before "://" mean, without "+sentinel" or "+cluster".
_SCHEMES = {
    "redis": "redis",
    "rediss": "rediss",
    "valkey": "redis",
    "valkeys": "rediss",
    "unix": "unix",
    "redis+unix": "unix",
}

#: What a host may be: a name, an IPv4 address, or an IPv6 address in brackets; and a port.
_HOST = re.compile(r"(\[[0-9a-f:.%]+\]|[^\[\]:/@]+)?(?::(.*))?", re.IGNORECASE)

#: Seconds that a command must be given: some wait for news for up to 2 s.
_SHORTEST_COMMAND_SECONDS = 3.0


class RedisURL(NamedTuple):
    """The parts of a URL. Its text is for no log, as it has the password."""

    scheme: str  # "redis", "rediss" or "unix"
    discovery: str  # "sentinel", "cluster", or empty
    hosts: tuple[tuple[str, int], ...]  # none with "unix"
    login: str  # "user:password", percent-encoded, or empty
    name: str  # of the master that Sentinels know
    path: str  # of the socket
    database: int
    prefix: str
    arguments: Mapping[str, str]


def parse(url: str) -> RedisURL:
    """Take a URL apart.

    Raises:
        ValueError: it means nothing. The message has nothing of what may be a password.
    """
    if re.search(r"[\s\x00-\x1f\x7f]", url):
        raise ValueError("the URL of the Redis server has a space or a line break in it")
    try:
        parts = urlsplit(url)
    except ValueError:  # brackets, which may be in a password
        raise _misread("is malformed") from None
    scheme, _, discovery = parts.scheme.partition("+")
    if discovery == "unix":
        scheme, discovery = f"{scheme}+unix", ""
    if (
        scheme not in _SCHEMES
        or discovery not in ("", "sentinel", "cluster")
        or (discovery and _SCHEMES[scheme] == "unix")
    ):
        raise ValueError("this is no URL of a Redis server, such as redis://127.0.0.1:6379/0")
    scheme = _SCHEMES[scheme]
    if parts.fragment or url.endswith("#"):
        raise _misread("has a # in it")
    arguments = dict(parse_qsl(parts.query, keep_blank_values=True))
    prefix = arguments.pop("prefix", _PREFIX)
    if not re.fullmatch(r"[A-Za-z0-9_.:-]{1,100}", prefix):
        raise ValueError("the prefix in the URL of the Redis server is none: letters, digits, _.:-")
    for name, value in arguments.items():
        _check_argument(name, value)
    login, _, netloc = parts.netloc.rpartition("@")
    path, name = parts.path, ""
    hosts: tuple[tuple[str, int], ...] = ()
    if scheme == "unix":
        if not path.strip("/"):
            raise ValueError("the URL of the Redis server lacks the path of its socket")
        number = arguments.pop("db", "0")
    else:
        hosts = _hosts(netloc, discovery, login)
        path = path.strip("/")
        if discovery == "sentinel":
            name, _, path = path.partition("/")
            if not name:
                raise ValueError("the URL of the Redis Sentinels lacks the master's name")
        number = path or arguments.pop("db", "0")
    if not re.fullmatch(r"[0-9]{1,9}", number):
        raise _misread("has a database that is no number")
    if discovery == "cluster" and int(number):
        raise ValueError("a Redis cluster has no databases: its URL ends after the hosts")
    return RedisURL(
        scheme, discovery, hosts, login, name, unquote(path), int(number), prefix, arguments
    )


def _hosts(netloc: str, discovery: str, login: str) -> tuple[tuple[str, int], ...]:
    usual = 26379 if discovery == "sentinel" else 6379
    hosts = []
    for text in netloc.split(",") if discovery else [netloc]:
        found = _HOST.fullmatch(text)
        if found is None:
            raise _misread("has a host that is none (an IPv6 address needs brackets)")
        host, port = found[1], found[2] or str(usual)
        if not host and (login or discovery):
            raise _misread("lacks a host")
        if not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65536:
            raise _misread("has a port that is none")
        hosts.append((unquote(host or "localhost").strip("[]"), int(port)))
    return tuple(hosts)


def _misread(what: str) -> ValueError:
    return ValueError(
        f"the URL of the Redis server {what}; in a password @ : / ? # % are written as %40 %3A "
        "%2F %3F %23 %25"
    )


def _is_seconds(value: str) -> bool:
    return re.fullmatch(r"[0-9]{1,6}(?:\.[0-9]*)?", value) is not None and float(value) > 0


def _is_command_time(value: str) -> bool:
    return _is_seconds(value) and float(value) >= _SHORTEST_COMMAND_SECONDS


def _is_flag(value: str) -> bool:
    return value.lower() in ("true", "false", "yes", "no", "1", "0", "y", "n", "t", "f")


def _is_verification(value: str) -> bool:
    return value in ("none", "optional", "required")


def _is_database(value: str) -> bool:
    return value.isdigit()


#: Other arguments of redis-py would make it repeat what it has sent, or answer in another form.
_ARGUMENTS: Mapping[str, Callable[[str], bool]] = {
    "db": _is_database,
    "username": bool,
    "password": bool,
    "client_name": bool,
    "socket_timeout": _is_command_time,
    "socket_connect_timeout": _is_seconds,
    "socket_keepalive": _is_flag,
    "ssl_cert_reqs": _is_verification,
    "ssl_check_hostname": _is_flag,
    "ssl_ca_certs": bool,
    "ssl_ca_path": bool,
    "ssl_certfile": bool,
    "ssl_keyfile": bool,
    "ssl_password": bool,
}


def _check_argument(name: str, value: str) -> None:
    check = _ARGUMENTS.get(name)
    if check is None:
        raise ValueError(
            "the URL of the Redis server has an unknown argument. There are: prefix, "
            + ", ".join(_ARGUMENTS)
        )
    if not check(value):
        raise ValueError(f"{name} in the URL of the Redis server has a value that it can't have")
