"""Many commands in one round trip, for a process that does one thing after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from redis.connection import Connection
from redis.exceptions import RedisError, ResponseError

from sseflask.store.redis.address import RedisAddress
from sseflask.store.redis.errors import store_error
from sseflask.store.redis.link import Argument, ServerInfo, read_info

Command = tuple[Argument, ...]

#: Keys that one step of a search looks at.
_SCANNED = 1000


class Pipeline:
    """A connection that is never made again once it is lost. Methods block; `StoreError`."""

    def __init__(self, url: str) -> None:
        self.address = RedisAddress(url)
        self.key = self.address.key
        self._connection: Connection | None = None

    def connect(self) -> ServerInfo:
        """Connect, and return what the server says of itself."""
        self.close()
        try:
            self._connection = self.address.connect()
            return read_info(self._connection)
        except (RedisError, OSError) as error:
            raise store_error(error, self.address.name) from error

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()

    def command(self, *command: Argument) -> Any:
        """Do one thing."""
        return self.commands([command])[0]

    def commands(self, commands: Sequence[Command]) -> list[Any]:
        """Do some things, and return the replies. If one is refused the others are done."""
        connection = self._connection
        assert connection is not None, "not connected"
        refused: ResponseError | None = None
        replies = []
        try:
            connection.send_packed_command(connection.pack_commands(commands))
            for _ in commands:
                try:
                    replies.append(connection.read_response())
                except ResponseError as error:
                    refused = refused or error
        except (RedisError, OSError) as error:
            self.close()
            raise store_error(error, self.address.name) from error
        except BaseException:
            self.close()  # replies may still be on their way
            raise
        if refused is not None:
            raise store_error(refused, self.address.name) from refused
        return replies

    def keys(self, *parts: str) -> Iterator[list[bytes]]:
        """All keys that begin with these parts, in pages; one may come twice."""
        cursor = b"0"
        while True:
            # What a prefix may have means nothing special in a pattern.
            cursor, keys = self.command(
                "SCAN", cursor, "MATCH", self.key(*parts) + b"*", "COUNT", _SCANNED
            )
            if keys:
                yield keys
            if cursor == b"0":
                return

    def time(self) -> float:
        """The server's time in seconds."""
        seconds, microseconds = self.command("TIME")
        return int(seconds) + int(microseconds) / 1e6
