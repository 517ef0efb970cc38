"""What a server's memory is taken for, by layer: Python's own account of it, from inside.

Only what is taken between two signals, and still there at the second one, is told: tracing itself
takes memory, so the whole is measured before. Each allocation counts for the innermost layer on
Python's stack, the standard library and compiled code for whatever has called them. The copies of
C's stack that greenlet keeps are taken out of gevent's part: they are of all that was called.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.layers import LAYERS, layer_of
from benchmarks.server_process import ROOT, Running, wait_until

_HOOK = Path(__file__).parent
_PATIENCE = 20.0
_WORKER = str(ROOT / "sseflask" / "transport" / "gunicorn")

VARIABLE = "BENCHMARK_MEMORY"
"""Names the folder in which the hook (sitecustomize.py here) leaves what it has found."""

PARTS = ("stack", *LAYERS, "worker")
"""C's stack, the layers, and `worker`: what sseflask has in place of gunicorn's worker."""


class NotTraced(Exception):
    """The server is not Python, or does not answer."""


@contextlib.contextmanager
def traced_environment() -> Iterator[dict[str, str]]:
    """Have what a server needs in its environment for its memory to be traced."""
    with tempfile.TemporaryDirectory(prefix="benchmark-memory-") as folder:
        paths = [str(_HOOK), os.environ.get("PYTHONPATH", "")]
        yield {VARIABLE: folder, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


class Trace:
    """The allocations of a server's processes from now on. Raises NotTraced."""

    def __init__(self, server: Running) -> None:
        self._processes = server.processes()
        self._folder = Path(server.environment[VARIABLE])
        self._signal("begun")

    def finish(self) -> dict[str, int]:
        """Give the bytes of each part that have been taken and are still there."""
        found: Counter[str] = Counter()
        for file in self._signal("ended"):
            told = json.loads(file.read_text())
            found.update({"stack": told["stacks"], "gevent": -told["stacks"]})
            for size, files in told["sizes"]:
                found[part_of(files)] += size
        return {part: found[part] for part in PARTS}

    def _signal(self, what: str) -> list[Path]:
        """Signal all processes, and wait until they have done what it is for."""
        files = [self._folder / f"{process}.{what}" for process in self._processes]
        for process in self._processes:
            os.kill(process, signal.SIGRTMIN)
        if not wait_until(lambda: all(file.exists() for file in files), _PATIENCE):
            raise NotTraced("a process does not tell what it has taken memory for")
        return files


def part_of(files: Sequence[str]) -> str:
    """Give the part of an allocation, from the files on the stack, the outermost first."""
    layer = layer_of(";".join(f"call ({file})" for file in files))
    if layer != "sseflask":
        return layer
    own = [file for file in files if file.startswith(f"{ROOT / 'sseflask'}/")]
    return "worker" if own[-1].startswith(_WORKER) else layer
