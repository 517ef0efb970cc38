"""Other processes that use what a test uses, and do one of the tests' functions.

Each prints how far it is, a line at a time; a line on its standard input lets it go on.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


@contextlib.contextmanager
def process(function: Callable[..., None], *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Call a function, with texts, in a process of its own; it does not outlive the block."""
    what = [function.__module__, function.__name__, *map(str, arguments)]
    with subprocess.Popen(
        [sys.executable, "-m", __name__, *what],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as child:
        try:
            yield child
        finally:
            child.kill()


def line(child: subprocess.Popen[str]) -> str:
    """The next line that a process prints; empty when it has ended."""
    assert child.stdout is not None
    return child.stdout.readline().strip()


def go_on(child: subprocess.Popen[str]) -> None:
    """Let a process go on."""
    assert child.stdin is not None
    child.stdin.write("\n")
    child.stdin.flush()


def say(text: object) -> None:
    print(text, flush=True)


def run_program(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python code as a program of its own, where warnings are errors; wait for its end."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        check=False,
    )


def report_of(module: str, path: Path | str) -> dict[str, Any]:
    """What a program of the tests, which has to work, prints as JSON at its end."""
    done = subprocess.run(
        [sys.executable, "-m", module, str(path)],
        capture_output=True,
        text=True,
        timeout=100,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


if __name__ == "__main__":
    getattr(importlib.import_module(sys.argv[1]), sys.argv[2])(*sys.argv[3:])
