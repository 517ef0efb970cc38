"""Counts what a server's processes do: Python calls by a profile hook, system calls by strace."""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.server_process import wait_until

_HOOK = Path(__file__).parent
_PATIENCE = 5.0

VARIABLE = "BENCHMARK_CALLS"
"""Names the file that the hook (sitecustomize.py here) shares with the harness."""


@dataclass(frozen=True)
class Calls:
    """Python functions entered or resumed, and functions written in C that these have called.

    Calls into compiled Cython code, and inside of compiled code, are in neither.
    """

    python: int
    builtin: int

    def __sub__(self, other: Calls) -> Calls:
        """Give the calls made between two readings."""
        return Calls(self.python - other.python, self.builtin - other.builtin)


class PythonCalls:
    """The running counts of all processes of one server; slows them down until `stop`."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), 24)
        self._counts = memoryview(self._shared).cast("Q")

    def read(self) -> Calls:
        """Give the counts so far."""
        return Calls(self._counts[0], self._counts[1])

    def stop(self) -> None:
        """Have every process take its hook out at its next call."""
        self._counts[2] = 1


@contextlib.contextmanager
def counted_environment() -> Iterator[dict[str, str]]:
    """Have what a server needs in its environment for its Python calls to be counted."""
    with tempfile.NamedTemporaryFile(prefix="benchmark-calls-") as file:
        file.truncate(24)
        paths = [str(_HOOK), os.environ.get("PYTHONPATH", "")]
        yield {VARIABLE: file.name, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


class NotTraced(Exception):
    """strace is not there, or may not trace other processes."""


class SystemCalls:
    """strace on running processes. `start` and `stop` block until it is attached and detached."""

    def __init__(self, processes: Sequence[int]) -> None:
        self._processes = processes
        self._summary = tempfile.NamedTemporaryFile(prefix="benchmark-strace-")  # noqa: SIM115
        self._strace: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Attach; NotTraced where that does not go well."""
        program = shutil.which("strace")
        if program is None:
            raise NotTraced("strace is not installed")
        command = [program, "-f", "-c", "-qq", "-o", self._summary.name]
        command += [f"--attach={process}" for process in self._processes]
        self._strace = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        attached = wait_until(self._attached_or_ended, _PATIENCE)
        if not attached or self._strace.poll() is not None:
            raise NotTraced("strace could not attach")

    def stop(self) -> int:
        """Detach and give the number of system calls since the start."""
        assert self._strace is not None
        self._strace.send_signal(signal.SIGINT)
        self._strace.wait(_PATIENCE)
        for line in Path(self._summary.name).read_text().splitlines():
            *figures, name = line.split() or [""]
            if name == "total":
                return int(figures[3])
        return 0  # strace leaves the table out where there is nothing to put in

    def close(self) -> None:
        """End strace if it still runs, and drop its summary."""
        if self._strace is not None and self._strace.poll() is None:
            self._strace.kill()
            self._strace.wait()
        self._summary.close()

    def _attached_or_ended(self) -> bool:
        assert self._strace is not None
        return self._strace.poll() is not None or all(map(_is_traced, self._processes))


def _is_traced(process: int) -> bool:
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except FileNotFoundError:
        return True  # it has ended meanwhile
    return any(line.startswith("TracerPid:") and line.split()[1] != "0" for line in lines)
