"""A connection to a Redis server, made again when it is lost."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from redis.connection import Connection
from redis.exceptions import (
    AskError,
    NoPermissionError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as ConnectionLost
from redis.exceptions import TimeoutError as NoAnswer

from sseflask.store.api import StoreBusy, StoreError
from sseflask.store.redis.errors import is_away, is_denied, is_refused, store_error, stores_nothing
from sseflask.store.redis.mark import MARK
from sseflask.store.redis.script import Script

if TYPE_CHECKING:
    from sseflask.store.redis.server import RedisServer

_TRY = Script("try_commands.lua")

Argument = bytes | str | int
"""What a command is made of; text is sent as UTF-8."""

#: Seconds before each attempt, if connections are lost, or can't be made.
_PAUSES = (0.0, 0.0, 0.01, 0.03, 0.1, 0.2, 0.3)

#: Seconds after the end of a command's time when that is noticed only if this process stood still.
_STOOD_STILL = 0.25


class ServerInfo(NamedTuple):
    """What a server says of itself."""

    identity: str  # changes if it is another server, or the same one with other data; or empty
    durable: bool  # it writes to a disk whatever changes
    policy: str = ""  # what it does when its memory is full, if it says so


class Link:
    """A connection of one greenlet or thread at a time. In the main thread's event loop only.

    It is made at the first call, and again after it was lost. Before anything else happens on it
    the server is checked, see `RedisServer.add_check`.
    """

    def __init__(self, server: RedisServer, *, probes: bool = False) -> None:
        self._server = server
        self._probes = probes  # tries also while the server is known to be away
        self._connection: Connection | None = None
        self.identity: str | None = None  # of the server that it leads to, while connected
        self._checked = 0
        self._checking = False
        self._reading = False
        self._outdated = False
        self._ended = False

    def run(
        self,
        script: Script,
        keys: Sequence[Argument],
        arguments: Sequence[Argument] = (),
        *,
        repeat: bool = True,
    ) -> Any:
        """Run a script and return its reply: bytes, numbers, ``None``, and lists of these. Blocks.

        Args:
            repeat: if the connection is lost, run it again on a new one. The script may have run
                already.

        Raises:
            StoreBusy: there was no answer in time; it may have run.
            StoreFull: the server's memory is full.
            StoreError: the server is not there, or refuses.
        """
        # A cluster moves a slot key by key. It refuses a command with a key that is not there, as
        # this one: else a script would run until it misses what has been moved already.
        keys = (*keys, self._server.key(MARK))
        return self._call(("EVALSHA", script.sha, len(keys), *keys, *arguments), script, repeat)

    def command(self, *command: Argument, repeat: bool = True) -> Any:
        """The same with a command."""
        return self._call(command, None, repeat)

    def connect(self) -> None:
        """Connect and check the server, if that has not been done. Blocks, raises as `run` does."""
        self._call((), None, repeat=True)

    def renew(self) -> None:
        """Connect anew, also for a call that waits for its answer. From any greenlet or thread.

        If a server did not answer for a while, a firewall may have forgotten what was open. There
        nothing is ever answered, and each call would take all of its time.
        """
        self._outdated = True
        # A call that sends would connect again without the checks.
        if self._reading:
            self.close()

    def close(self) -> None:
        """Disconnect; the next call connects again. For the link's own greenlet or thread."""
        connection, self._connection = self._connection, None
        self.identity = None
        if connection is not None:
            connection.disconnect()

    def end(self) -> None:
        """Disconnect for good: each call fails, also one that waits for its answer.

        From any greenlet or thread.
        """
        self._ended = True
        self.renew()

    def _call(self, command: Sequence[Argument], script: Script | None, repeat: bool) -> Any:
        lost = 0
        while True:
            late, ready = math.inf, False
            try:
                connection = self._ready()
                ready = True
                if not command:
                    return None
                late = time.monotonic() + self._server.address.command_seconds + _STOOD_STILL
                connection.send_command(*command)
                return self._read(connection)
            except NoScriptError:
                assert script is not None
                command = ("EVAL", script.text, *command[2:])
                script = None
            except (RedisError, OSError) as error:
                moved = isinstance(error, AskError | TryAgainError)  # within a cluster
                if moved or not isinstance(error, ResponseError):
                    self.close()
                if self._checking:
                    raise  # to the call that has made the connection
                # If this process stood still the answer may be there, unread.
                gone = isinstance(error, ConnectionLost | OSError) or time.monotonic() > late
                if not (moved or gone):
                    raise self._failed(error, ready) from error
                # Further attempts show whether the server is gone as well as the connection.
                lost += 1
                if is_refused(error) or not repeat or lost == len(_PAUSES):
                    raise self._failed(error, ready) from error
                time.sleep(_PAUSES[lost])  # gevent's, if it has replaced it
            except BaseException:
                self.close()  # the reply may still be on its way
                raise

    def _read(self, connection: Connection) -> Any:
        self._reading = True
        try:
            return connection.read_response()
        except (RedisError, OSError):
            raise
        except Exception as error:
            if self._connection is connection:
                raise
            # See `renew`. What redis-py raises then depends on its parser.
            raise ConnectionLost("the connection was closed") from error
        finally:
            self._reading = False

    def _ready(self) -> Connection:
        if self._outdated and not self._checking:
            self._outdated = False
            self.close()
        if self._ended:
            raise StoreError("the connection to the Redis server is closed")
        connection = self._connection
        server = self._server
        if connection is not None and (self._checking or self._checked == server.checks):
            return connection
        if connection is None:
            if self._checking:
                raise ConnectionLost("the connection was closed while the server was looked at")
            if not self._probes:
                server.raise_if_away()
            connection = self._connection = server.address.connect()
            self._checked = 0
        self._checking = True
        try:
            info = read_info(connection)
            self.identity = info.identity
            self._checked = server.check(self, info)
        except BaseException:
            self.close()
            raise
        finally:
            self._checking = False
        return connection

    def try_commands(self) -> None:
        """See whether the server stores, and whether its user may do all that stores do. Blocks.

        Raises as `run` does, if it does not store; a user that lacks a right has no server.
        """
        server = self._server
        try:
            self.run(_TRY, [server.key("try")])
        except StoreError as error:
            if error.__cause__ is not None and is_denied(error.__cause__):
                server.set_away(error)
            raise
        server.set_stores()

    def _failed(self, error: Exception, ready: bool) -> StoreError:
        """What to raise; the server is told if it means that it is away.

        One that refuses what a connection begins with (``ready`` is false) refuses everything.
        """
        if isinstance(error, StoreError):
            return error
        found = store_error(error, self._server.name)
        if (
            self._connection is None
            and isinstance(error, NoAnswer)
            and self._server.address.has_tls
        ):
            found = StoreBusy(f"{found}; perhaps it has no TLS there (rediss://)")
        if is_away(error) or not ready:
            self._server.set_away(found)
            self.close()
        elif stores_nothing(error):
            self._server.set_read_only(found)
        return found


def read_info(connection: Connection) -> ServerInfo:
    """What a server says of itself; nothing to a user who may not ask.

    Raises `ReadOnlyError` if it is no master.
    """
    connection.send_command("INFO")
    try:
        text: bytes = connection.read_response()
    except ResponseError as error:
        if isinstance(error, NoPermissionError) or "unknown command" in str(error):
            return ServerInfo("", False)
        raise
    fields = info_fields(text)
    if fields.get("role", "master") != "master":
        raise ReadOnlyError("READONLY it is a replica")
    identity = f"{fields.get('run_id', '')}:{fields.get('master_replid', '')}"
    return ServerInfo(
        "" if identity == ":" else identity,
        fields.get("aof_enabled") == "1",
        fields.get("maxmemory_policy", ""),
    )


def info_fields(text: bytes) -> dict[str, str]:
    """What an answer to ``INFO`` says, by name."""
    lines = text.decode("utf-8", "replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)
