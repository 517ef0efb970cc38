"""Servers of Redis and Valkey that lose what they have, come back, and follow each other."""

from __future__ import annotations

import contextlib
import shutil
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.live.kit.servers import free_port
from tests.redis_server import RedisServerProcess, programs

Persistence = Literal["none", "everysec", "always"]
"""Nothing on disk, or the append-only file: written to disk every second, or before each answer."""


def program(kind: str) -> str:
    """The program of a kind of server; the test is skipped where the machine lacks it."""
    if kind not in programs():
        pytest.skip(f"{kind}-server is not installed")
    return programs()[kind]


class RedisServer(RedisServerProcess):
    """One server and its data, over as many starts as a test wants; on one port all the time.

    Args:
        directory: an empty directory for its data and its log.
        kind: ``redis`` or ``valkey``.
        persistence: what is on disk, and when.
        max_memory: in bytes; 0 is no limit.
        policy: what is done when the memory is full.
        host: an address that it listens on beside 127.0.0.1.
        options: more of its settings, as on its command line.
    """

    def __init__(
        self,
        directory: Path,
        kind: str = "redis",
        *,
        persistence: Persistence = "none",
        max_memory: int = 0,
        policy: str = "noeviction",
        host: str = "",
        options: Sequence[str] = (),
    ) -> None:
        self._data = directory / "data"
        self._data.mkdir(parents=True)
        self._log = directory / "redis.log"
        appending = "no" if persistence == "none" else "yes"
        syncing = "everysec" if persistence == "none" else persistence
        super().__init__(
            program(kind),
            *("--dir", str(self._data), "--logfile", str(self._log), "--loglevel", "notice"),
            *("--bind", "127.0.0.1", *host.split(), "--protected-mode", "no"),
            *("--save", "", "--appendonly", appending, "--appendfsync", syncing),
            *("--maxmemory", str(max_memory), "--maxmemory-policy", policy),
            # A replica gets the data of its master over the connection, and at once.
            *("--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0"),
            *options,
            port=free_port(),
        )

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def log(self) -> str:
        """What all its starts have logged."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def restart(self, *, data: bool = True) -> None:
        """Kill it if it runs, and start it again.

        Args:
            data: whether it has what it had on disk.
        """
        self.stop(signal.SIGKILL)
        if not data:
            shutil.rmtree(self._data)
            self._data.mkdir()
        self.start()


@contextlib.contextmanager
def redis_server(directory: Path, kind: str = "redis", **options: Any) -> Iterator[RedisServer]:
    """A server that runs, see `RedisServer`; its log is printed for a failure."""
    server = RedisServer(directory, kind, **options)
    try:
        server.start()
        yield server
    finally:
        server.close()
        print(f"--- log of {kind} on {server.port} ---\n{server.log()[-8000:]}")
