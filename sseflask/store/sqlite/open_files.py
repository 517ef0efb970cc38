"""The first bytes of database files, read without harm to a database that this process has open.

POSIX drops all locks of a process on a file as soon as the process closes any descriptor of it.
SQLite's locks go with them. Another process that closes the database then takes itself for the last
one, and deletes the write-ahead log that is still written to
(https://www.sqlite.org/howtocorrupt.html, section 2.2).
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from sseflask.loop import native

__all__ = ["first_bytes", "note_closed", "note_opened"]

# The native lock: databases belong to native threads. Held for a look at one file.
_lock: Any = native.lock()

_held: Counter[tuple[int, int]] = Counter()


def note_opened(path: str | Path) -> tuple[int, int]:
    """Note that this process is about to open a database; `note_closed` takes what it returns.

    Raises:
        OSError: the file is not there.
    """
    with _lock:
        found = Path(path).stat()
        key = found.st_dev, found.st_ino
        _held[key] += 1
        return key


def note_closed(key: tuple[int, int]) -> None:
    """Note that it is closed again."""
    with _lock:
        _held[key] -= 1
        if not _held[key]:
            del _held[key]


def first_bytes(path: str | Path, amount: int) -> bytes | None:
    """Read the first bytes of a file; ``None`` while this process has it open as a database.

    Raises:
        OSError: it can't be read.
    """
    with _lock:
        found = Path(path).stat()
        if (found.st_dev, found.st_ino) in _held:
            return None
        with Path(path).open("rb") as opened:
            return opened.read(amount)
