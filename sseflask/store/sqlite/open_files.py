"""Reads the first bytes of database files, unless this process has the database open.

When a process closes any descriptor of a file, POSIX drops all its locks on the file, SQLite's too.
Another process that closes the database then takes itself for the last one, and deletes the
write-ahead log in use (https://www.sqlite.org/howtocorrupt.html, section 2.2).
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from sseflask.loop import native

# Held while one file is looked at.
_lock: Any = native.lock()

_open: Counter[tuple[int, int]] = Counter()


def note_opened(path: str | Path) -> tuple[int, int]:
    """Note that this process is about to open a database; return what `note_closed` takes."""
    with _lock:
        found = Path(path).stat()
        key = found.st_dev, found.st_ino
        _open[key] += 1
        return key


def note_closed(key: tuple[int, int]) -> None:
    with _lock:
        _open[key] -= 1
        if not _open[key]:
            del _open[key]


def first_bytes(path: str | Path, amount: int) -> bytes | None:
    """Read the first bytes of a file; ``None`` while this process has it open as a database."""
    with _lock:
        found = Path(path).stat()
        if (found.st_dev, found.st_ino) in _open:
            return None
        with Path(path).open("rb") as opened:
            return opened.read(amount)
