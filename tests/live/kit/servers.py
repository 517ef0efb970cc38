"""Real servers in processes of their own: start, wait until ready, stop, show the log."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from http.client import HTTPException
from pathlib import Path

import psutil

from sseflask.platforms import DETECTING
from tests.live.kit.waiting import until

ROOT = Path(__file__).resolve().parents[3]
WORKER = "sseflask.transport.worker.StreamWorker"
GUNICORN = [sys.executable, "-m", "gunicorn", "--no-control-socket", "--log-level", "info"]
#: How long a server may take to end: long on a busy machine, but less than gunicorn's usual grace
#: time, which none needs all of.
END_SECONDS = 25
#: What a server under test may print a traceback of: what the probe does wrong on purpose.
EXPECTED_ERRORS = (
    "tests.live.kit.notes.ProbeError",
    "ArithmeticError: on purpose",
    "sseflask.errors.EventError: a stream can't send a object",
    "RuntimeError: generator ignored GeneratorExit",
    "RuntimeError: the items of a stream raised ",
)
TRACEBACK = re.compile(
    r"^Traceback .*\n(?: .*\n)+(?P<error>\S.*)\n"
    r"(?!\n(?:The above exception was|During handling of the above))",
    re.MULTILINE,
)


def free_port() -> int:
    """A port on which no process listens right now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def environment(**changes: str) -> dict[str, str]:
    """This process's environment without settings that would reach the service, plus changes."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SSEFLASK_", "OPENAI_", "GUNICORN_", "FLASK_"))
        and name
        not in ("PORT", "WEB_CONCURRENCY", "REDIS_URL", "VIRTUAL_ENV", "MAKEFLAGS", *DETECTING)
    }
    return {**kept, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT), **changes}


class Server:
    """A server process and everything it started.

    Args:
        kind: what to call it in messages.
        command: the arguments, the program first.
        port: where it will listen.
        directory: an empty directory for its log.
        changes: further environment variables.
        cwd: where it runs.
        inherited: descriptors that it has as well.
    """

    def __init__(
        self,
        kind: str,
        command: Sequence[str],
        port: int,
        directory: Path,
        changes: Mapping[str, str] | None = None,
        cwd: Path = ROOT,
        inherited: Sequence[int] = (),
    ) -> None:
        self.kind = kind
        self.port = port
        self.directory = directory
        self.marks_directory = directory / "marks"
        self.marks_directory.mkdir(parents=True, exist_ok=True)
        self._log = directory / "server.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env=environment(**{"PROBE_MARKS": str(self.marks_directory), **(changes or {})}),
                start_new_session=True,
                pass_fds=inherited,
            )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def raw_log(self) -> bytes:
        return self._log.read_bytes()

    def marks(self, tag: str) -> list[str]:
        """What the probe has noted under this tag so far."""
        path = self.marks_directory / tag
        return path.read_text().splitlines() if path.exists() else []

    def wait_for_mark(self, tag: str, mark: str, *, seconds: float = 15.0) -> None:
        until(
            lambda: mark in self.marks(tag),
            f"{mark!r} among the marks of {tag} on {self.kind}",
            seconds=seconds,
        )

    def wait_until_ready(self, path: str, seconds: float = 30.0) -> None:
        """Wait until it answers; fails with the log if the process ends first."""

        def answers() -> bool:
            if self.process.poll() is not None:
                raise AssertionError(
                    f"{self.kind} ended with {self.process.returncode}:\n{self.log()}"
                )
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            with contextlib.closing(connection), contextlib.suppress(OSError, HTTPException):
                connection.request("GET", path)
                return connection.getresponse().status == 200
            return False

        until(answers, f"{self.kind} answers on {self.port}", seconds=seconds)

    def send_signal(self, number: int) -> None:
        """To the main process, as a process manager does it."""
        self.process.send_signal(number)

    def interrupt(self) -> None:
        """Ctrl-C: the terminal sends SIGINT to the whole foreground process group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()

    def serving(self) -> psutil.Process:
        """The one process that runs the app: gunicorn's only worker, or the server itself."""
        workers = self.workers() if "gunicorn" in self.kind else []
        return workers[0] if workers else psutil.Process(self.process.pid)

    def wait_until_ended(self, seconds: float = 30.0) -> int:
        return self.process.wait(seconds)

    def members(self) -> list[psutil.Process]:
        """What is left of the server's process group."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                if os.getpgid(process.pid) == self.process.pid and (
                    process.status() != psutil.STATUS_ZOMBIE
                ):
                    found.append(process)
        return found

    def kill(self) -> None:
        """The whole process group, whatever state it is in."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(5)

    def stop(self) -> None:
        """SIGTERM, then SIGKILL to whatever is left; fails if the server left anything behind."""
        if self.process.poll() is None:
            self.send_signal(signal.SIGTERM)
        in_time = True
        try:
            self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            in_time = False
        left = self.members()
        self.kill()
        assert in_time, f"{self.kind} did not end within {END_SECONDS} s of SIGTERM:\n{self.log()}"
        assert not left, f"{self.kind} left {left} behind:\n{self.log()}"

    def assert_log_is_clean(self) -> None:
        """No traceback but of the probe's own errors, nothing that Python could only mutter."""
        log = self.log()
        for found in TRACEBACK.finditer(log):
            if not found["error"].startswith(EXPECTED_ERRORS):
                raise AssertionError(f"{self.kind} logged an unexpected error:\n{found[0]}")
        for muttered in ("Exception ignored in", "was never awaited"):
            assert muttered not in log, f"{self.kind} logged {muttered!r}:\n{log}"


@contextlib.contextmanager
def running(
    kind: str,
    command: Sequence[str],
    port: int,
    directory: Path,
    changes: Mapping[str, str] | None = None,
    ready: str = "/hello",
    cwd: Path = ROOT,
) -> Iterator[Server]:
    """A server that is ready, and stopped afterwards; its log is printed for a failure."""
    server = Server(kind, command, port, directory, changes, cwd)
    try:
        try:
            server.wait_until_ready(ready)
            yield server
        finally:
            print(f"--- log of {kind} on {port} ---\n{server.log()[-8000:]}")
    finally:
        server.stop()
