"""Other processes that use a log: ``python -m tests.channels.processes <what> <path> ...``.

Each says on its standard output how far it is, a line at a time, and goes on or ends when it is
told to on its standard input.
"""

from __future__ import annotations

import contextlib
import resource
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from sseflask.channels.log import Append, Appended, LogError
from sseflask.channels.sqlite import SqliteLog

ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def process(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run one of the functions below in a process of its own; it does not outlive the block."""
    command = [sys.executable, "-m", __name__, *map(str, arguments)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
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
    """Tell a process to."""
    assert child.stdin is not None
    child.stdin.write("\n")
    child.stdin.flush()


def opened(path: str) -> SqliteLog:
    log = SqliteLog(path, keep=1_000_000, seconds=86_400)
    log.open()
    return log


def say(text: object) -> None:
    print(text, flush=True)


def append(path: str, groups: str, tag: str) -> None:
    """Append groups of 1 to 5 events; say the last number of each that was stored."""
    say("ready")
    sys.stdin.readline()
    log = opened(path)
    say(log.epoch)
    for index in range(int(groups)):
        amount = index % 5 + 1
        frames = tuple(b"%s %d %d/%d" % (tag.encode(), index, n, amount) for n in range(amount))
        (result,) = log.append([Append(tag, frames)])
        assert isinstance(result, Appended)
        say(result.last)
    log.close()


def hold(path: str) -> None:
    """Hold the write lock until told to let go."""
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("BEGIN IMMEDIATE")
    say("locked")
    sys.stdin.readline()
    database.execute("ROLLBACK")
    database.close()


def fill(path: str) -> None:
    """Meet a limit to the size of files, as if the disk were full, and get over it."""
    log = opened(path)
    most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, most))
    stored = 0
    try:
        while stored < 10_000:
            log.append([Append("a", (b"x" * 4000,) * 3), Append("b", (b"y" * 4000,))])
            stored += 4
    except LogError as error:
        say(error)
    say(stored)
    for _ in range(3):
        with contextlib.suppress(LogError):
            log.append([Append("c", (b"z" * 100_000,))])
            say("that should not have been possible")
    say([entry.number for entry in log.since(0, 10_000)] == list(range(1, stored + 1)))
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    log.append([Append("c", (b"z",) * 2)])
    say([entry.number for entry in log.since(0, 10_000)] == list(range(1, stored + 3)))
    log.close()


if __name__ == "__main__":
    functions: dict[str, Callable[..., None]] = {"append": append, "hold": hold, "fill": fill}
    functions[sys.argv[1]](*sys.argv[2:])
