"""Addresses of Redis and Valkey servers: what their URLs mean, and where the master is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

from redis.backoff import NoBackoff
from redis.connection import Connection, SSLConnection, parse_url
from redis.crc import key_slot
from redis.exceptions import ConnectionError as ConnectionLost
from redis.exceptions import RedisError
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel

from sseflask.store.redis.mark import MARK
from sseflask.store.redis.url import parse

#: Seconds to connect in, and seconds that a command may take: a server that takes 2 s for each
#: still works, and one that answers nothing is given up.
CONNECT_SECONDS, COMMAND_SECONDS = 2.0, 5.0


class RedisAddress:
    """Where a server is.

    - ``redis://[user:password@]host:port/database``, ``rediss://`` with TLS, ``unix://path``;
      ``valkey://``, ``valkeys://`` and ``redis+unix://`` mean the same.
    - ``redis+sentinel://[user:password@]host:port,host:port/name/database``: the master of that
      name, as one of these Sentinels says.
    - ``redis+cluster://[user:password@]host:port,host:port``: the node of a cluster that has our
      keys. All keys are in one slot. With ``rediss+`` both use TLS.

    In the query ``prefix`` says how keys begin, so that several applications can share a server.
    redis-py describes the others that are allowed, see `sseflask.store.redis.url`.

    Raises:
        ValueError: the URL means nothing.
    """

    def __init__(self, url: str) -> None:
        parsed = parse(url)
        self.prefix = parsed.prefix
        # The hash tag puts all keys into one slot of a cluster.
        self._key = f"{{{parsed.prefix}}}:".encode()
        self._discovery, self._name, self._hosts = parsed.discovery, parsed.name, parsed.hosts
        login = f"{parsed.login}@" if parsed.login else ""
        query = f"?{urlencode({**parsed.arguments, 'db': parsed.database})}"
        where = parsed.path if parsed.scheme == "unix" else "localhost"
        self._options: dict[str, Any] = {
            "socket_connect_timeout": CONNECT_SECONDS,
            "socket_timeout": COMMAND_SECONDS,
            **({} if parsed.scheme == "unix" else {"socket_keepalive": True}),
            **parse_url(f"{parsed.scheme}://{login}{where}{query}"),
            "protocol": 2,
        }
        if parsed.scheme == "unix":
            self._options["path"] = parsed.path
        else:
            self._options["host"], self._options["port"] = self._hosts[0]
        self._class: type[Connection] = self._options.pop("connection_class", Connection)
        self.has_tls = issubclass(self._class, SSLConnection)
        #: Seconds that a command may take.
        self.command_seconds: float = self._options["socket_timeout"]
        #: For people; without the password.
        self.name = self._shown()

    def _shown(self) -> str:
        if self._options.get("path"):
            return str(self._options["path"])
        return ",".join(
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self._hosts
        )

    def key(self, *parts: str) -> bytes:
        """A key with the prefix."""
        return self._key + ":".join(parts).encode()

    def connect(self) -> Connection:
        """Connect to the master, without retries. Blocks; raises what redis-py does."""
        failure: RedisError = ConnectionLost(f"no server of {self.name} answers")
        for host in self._masters():
            connection = self._class(**{**self._options, **host})
            try:
                connection.connect()
                if self._discovery == "cluster":
                    # A node that is parted from the others names the master of before.
                    connection.send_command("EXISTS", self.key(MARK))
                    connection.read_response()
            except RedisError as error:
                connection.disconnect()
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
            if self.has_tls:
                tls["ssl"] = True
            sentinel = Sentinel(
                self._hosts, sentinel_kwargs={**timeouts, **tls, "retry": Retry(NoBackoff(), 0)}
            )
            try:
                host, port = sentinel.discover_master(self._name)
            except MasterNotFoundError:  # which describes all connections
                raise ConnectionLost(f"no Sentinel names a master {self._name}") from None
            finally:
                for client in sentinel.sentinels:
                    client.close()
            yield {"host": host, "port": port}
        elif self._discovery == "cluster":
            yield from self._nodes()
        else:
            yield {}

    def _nodes(self) -> Iterator[dict[str, Any]]:
        slot = key_slot(self.prefix.encode())
        named: set[tuple[str, int]] = set()
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
                    found = (node[0] or b"").decode() or host, node[1]
                    if found not in named:
                        named.add(found)
                        yield {"host": found[0], "port": found[1]}
