"""A server process: started on its own core, waited for, its CPU time read, ended."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from benchmarks.client.http import get
from benchmarks.client.load import Beside
from benchmarks.redis_process import RedisProcess, on_redis, redis_server
from benchmarks.stack import Stack

ROOT = Path(__file__).resolve().parent.parent
_START_PATIENCE = 20.0
_SNAPSHOTS = 20
_INFORMATION = " [INFO] "
"""The level as gunicorn and sseflask write it."""


@dataclass(frozen=True)
class Cores:
    """The core the server gets and the one of the client and of scripted upstreams.

    A stack's Redis server has the third one, or else the client's: on the server's core it would
    take the time that is measured.
    """

    server: int
    client: int
    third: int | None = None

    @property
    def redis(self) -> int:
        """The core of a stack's Redis server."""
        return self.client if self.third is None else self.third

    @classmethod
    def choose(cls) -> Cores:
        """Take the first cores that this process may use; one for all if there is no other."""
        server, *others = sorted(os.sched_getaffinity(0))
        return cls(server, others[0] if others else server, others[1] if others[1:] else None)

    @contextlib.contextmanager
    def client_side(self) -> Iterator[None]:
        """Have this process run on the client's core for the time of the block."""
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {self.client})
        try:
            yield
        finally:
            os.sched_setaffinity(0, before)


def raise_descriptor_limit() -> int:
    """Raise this process's limit, inherited by those it starts, as far as allowed; give it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def wait_until(condition: Callable[[], bool], patience: float, pause: float = 0.01) -> bool:
    """Look at a condition again and again, at most `patience` seconds; give whether it holds."""
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
    return True


def free_port() -> int:
    """Give a loopback port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class NotStarted(Exception):
    """The server ended, or did not answer, before anything could be measured."""


class NotReloaded(Exception):
    """Processes that were to be replaced are still there."""


@dataclass
class Running:
    """A server that answers on `port`, with what was added to its environment and runs beside."""

    stack: Stack
    port: int
    process: subprocess.Popen[bytes]
    environment: Mapping[str, str]
    errors: IO[bytes]
    beside: Sequence[Beside] = ()
    redis: RedisProcess | None = None

    def request(self, route: str, **values: object) -> bytes:
        """Give the bytes of a request to a route; NoRoute where the stack has none of that name."""
        return get(self.stack.path(route, **values), self.port)

    def cpu(self) -> float:
        """Give the CPU seconds (user and system) of all the server's processes so far."""
        for _ in range(_SNAPSHOTS):
            # A child that ends meanwhile is in its parent's figure the next time.
            with contextlib.suppress(OSError):
                return sum(cpu_of(process) for process in self.processes())
        raise RuntimeError("the server's processes come and go too fast to be counted")

    def processes(self) -> list[int]:
        """Give the ids of the server's process and all its descendants."""
        return _session(self.process.pid)

    def terminate(self) -> None:
        """Send SIGTERM to the server's first process, as a platform does."""
        self.process.terminate()

    @contextlib.contextmanager
    def reloading(self, patience: float) -> Iterator[None]:
        """Redeploy: its first process is told to replace the others (SIGHUP).

        After the block those of before are gone, or NotReloaded is raised.
        """
        old = set(self.processes()) - {self.process.pid}
        self.process.send_signal(signal.SIGHUP)
        yield
        if not wait_until(lambda: old.isdisjoint(self.processes()), patience):
            raise NotReloaded("a worker of before the redeploy is still there")

    @property
    def exited(self) -> bool:
        """Whether the server's first process is gone."""
        return self.process.poll() is not None

    def messages(self) -> list[str]:
        """Give the lines that the server has written to its standard error."""
        self.errors.seek(0)
        return self.errors.read().decode(errors="replace").splitlines()

    def complaints(self) -> list[str]:
        """Give those of its lines that are no plain information, such as how a run has ended."""
        return [line for line in self.messages() if _INFORMATION not in line]


@contextlib.contextmanager
def running(
    stack: Stack,
    cores: Cores,
    environment: Mapping[str, str],
    beside: Sequence[Beside] = (),
) -> Iterator[Running]:
    """Have a server run for the time of the block; NotStarted if it does not answer.

    What is left of its processes at the end is killed.
    """
    port = free_port()
    command = [part.replace("{port}", str(port)) for part in stack.command]
    with contextlib.ExitStack() as opened:
        # Appended to: the server and this process share one position in it.
        errors = opened.enter_context(tempfile.TemporaryFile("a+b"))
        redis = None
        variables = {**stack.environment, **environment}
        if stack.redis is not None:
            redis = opened.enter_context(redis_server(free_port(), cores.redis, stack.redis))
            variables = on_redis(variables, redis)
        process = start(command, cores.server, variables, errors)
        try:
            server = Running(stack, port, process, environment, errors, beside, redis)
            ready = wait_until(lambda: server.exited or answers(port), _START_PATIENCE)
            if not ready or server.exited:
                raise NotStarted("; ".join(server.messages()[-3:]) or "no answer")
            yield server
        finally:
            end(process)


def start(
    command: list[str], core: int, environment: Mapping[str, str], errors: IO[bytes]
) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own, on one core, in the repository's root."""
    before = os.sched_getaffinity(0)
    # A child inherits the affinity; setting it between fork and exec would need code there.
    os.sched_setaffinity(0, {core})
    try:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
        )
    finally:
        os.sched_setaffinity(0, before)


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of a process and its descendants, and wait for it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def answers(port: int) -> bool:
    """Whether something accepts connections on a loopback port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _session(leader: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            # Processes of others come and go meanwhile.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if int(_fields(int(entry.name))[3]) == leader:
                    found.append(int(entry.name))
    return found


def _fields(process: int) -> list[str]:
    """Give the fields of /proc/<pid>/stat from the state on; the name before may hold spaces."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()


def cpu_of(process: int) -> float:
    """Give the CPU seconds of a process and of its children that have ended."""
    children = sum(map(int, _fields(process)[13:15])) / os.sysconf("SC_CLK_TCK")
    # The process's own CPU clock (clock_getcpuclockid(3)) says what utime and stime say, in
    # nanoseconds instead of hundredths of a second.
    return time.clock_gettime_ns((~process << 3) | 2) / 1e9 + children


def system_time_of(process: int) -> float:
    """Give the CPU seconds that the kernel has worked for a process, in hundredths of a second."""
    return int(_fields(process)[12]) / os.sysconf("SC_CLK_TCK")
