"""Addresses of Redis and Valkey servers: what their URLs mean, and where the master is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from redis.backoff import NoBackoff
from redis.connection import Connection, SSLConnection, parse_url
from redis.crc import key_slot
from redis.exceptions import RedisError
from redis.retry import Retry
from redis.sentinel import Sentinel

from sseflask.store.api import StoreError

#: Beginnings of keys, unless the URL has its own.
_PREFIX = "sseflask"

#: Seconds to connect in, and seconds that a command may take: a server that takes 2 s for each
#: still works, and one that answers nothing is given up.
CONNECT_SECONDS, COMMAND_SECONDS = 2.0, 5.0

#: Seconds that a command must be given: some wait for news for up to 2 s.
_SHORTEST_COMMAND_SECONDS = 3.0

_KINDS = ("redis", "rediss", "unix")


class RedisAddress:
    """Where a server is.

    - ``redis://[user:password@]host:port/database``, ``rediss://`` with TLS, ``unix://path``;
      ``valkey://``, ``valkeys://`` and ``redis+unix://`` mean the same.
    - ``redis+sentinel://[user:password@]host:port,host:port/name/database``: the master of that
      name, as one of these Sentinels says.
    - ``redis+cluster://[user:password@]host:port,host:port``: the node of a cluster that has our
      keys. All keys are in one slot. With ``rediss+`` both use TLS.

    In the query ``prefix`` says how keys begin, so that several applications can share a server.
    redis-py describes other arguments.

    Raises:
        ValueError: the URL means nothing.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        scheme, _, self._discovery = parts.scheme.replace("redis+unix", "unix").partition("+")
        scheme = {"valkey": "redis", "valkeys": "rediss"}.get(scheme, scheme)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        self.prefix = query.pop("prefix", _PREFIX)
        if scheme not in _KINDS or not re.fullmatch(r"[A-Za-z0-9_.:-]{1,100}", self.prefix):
            raise ValueError("this is no URL of a Redis server, or its prefix is none")
        self._name = ""
        self._hosts: list[tuple[str, int]] = []
        path = parts.path
        if self._discovery:
            self._hosts = _hosts(parts, 26379 if self._discovery == "sentinel" else 6379)
            if self._discovery == "sentinel":
                self._name, _, path = path.strip("/").partition("/")
            if not all(host for host, _ in self._hosts) or not (
                self._name or self._discovery == "cluster"
            ):
                raise ValueError("the URL of the Redis server lacks a host, or a master's name")
        netloc = parts.netloc
        if self._hosts:
            login, at, _ = netloc.rpartition("@")
            netloc = f"{login}{at}localhost"
        plain = f"{scheme}://{netloc}{path}" + (f"?{urlencode(query)}" if query else "")
        self._options: dict[str, Any] = {
            "socket_connect_timeout": CONNECT_SECONDS,
            "socket_timeout": COMMAND_SECONDS,
            **({} if scheme == "unix" else {"socket_keepalive": True}),
            **parse_url(plain),
            # Replies are read in one form alone.
            "protocol": 2,
            "encoding": "utf-8",
            "decode_responses": False,
        }
        self._class: type[Connection] = self._options.pop("connection_class", Connection)
        try:
            self._class(**self._options)  # it connects later
        except TypeError as error:
            raise ValueError(
                f"the URL of the Redis server has an unknown argument: {error}"
            ) from None
        #: Seconds that a command may take.
        self.command_seconds: float = self._options["socket_timeout"]
        if self.command_seconds < _SHORTEST_COMMAND_SECONDS:
            raise ValueError(
                "in the URL of the Redis server socket_timeout must be "
                f"{_SHORTEST_COMMAND_SECONDS:g} or more, as reading waits 2 s for what is new"
            )
        #: For people; without the password.
        self.name = self._shown()

    def _shown(self) -> str:
        if self._hosts:
            return ",".join(f"{host}:{port}" for host, port in self._hosts)
        options = self._options
        path: str | None = options.get("path")
        return path or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"

    def connect(self) -> Connection:
        """Connect to the master, without retries. Blocks; raises what redis-py does."""
        failure: Exception = StoreError(f"no server of {self.name} answers")
        for host in self._masters():
            connection = self._class(**{**self._options, **host})
            try:
                connection.connect()
            except RedisError as error:
                failure = error
            else:
                return connection
        raise failure

    def _masters(self) -> Iterator[dict[str, Any]]:
        """Where the master may be."""
        if self._discovery == "sentinel":
            timeouts = {
                key: value for key, value in self._options.items() if key.startswith("socket_")
            }
            # What needs TLS at the servers needs it at their Sentinels.
            tls = {key: value for key, value in self._options.items() if key.startswith("ssl_")}
            if issubclass(self._class, SSLConnection):
                tls["ssl"] = True
            sentinel = Sentinel(
                self._hosts, sentinel_kwargs={**timeouts, **tls, "retry": Retry(NoBackoff(), 0)}
            )
            host, port = sentinel.discover_master(self._name)
            yield {"host": host, "port": port}
        elif self._discovery == "cluster":
            yield from self._nodes()
        else:
            yield {}

    def _nodes(self) -> Iterator[dict[str, Any]]:
        slot = key_slot(self.prefix.encode())
        for host, port in self._hosts:
            seed = self._class(**{**self._options, "host": host, "port": port})
            try:
                seed.connect()
                seed.send_command("CLUSTER", "SLOTS")
                ranges = seed.read_response()
            except RedisError:
                continue
            finally:
                seed.disconnect()
            for first, last, node, *_ in ranges:
                if first <= slot <= last:
                    # A node without a name of its own is the one that was asked.
                    yield {"host": (node[0] or b"").decode() or host, "port": node[1]}
                    return


def _hosts(parts: SplitResult, port: int) -> list[tuple[str, int]]:
    hosts = []
    for host in parts.netloc.rpartition("@")[2].split(","):
        name, _, number = host.rpartition(":") if ":" in host else (host, "", "")
        if number and not number.isdigit():
            raise ValueError(f"{number} is no port")
        hosts.append((unquote(name), int(number or port)))
    return hosts
