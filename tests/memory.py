"""A directory in memory, for tests that make hundreds of files and are not about the disk."""

from __future__ import annotations

import os
from tempfile import TemporaryDirectory

_SHARED_MEMORY = "/dev/shm"  # the names in it are as unforeseeable as in /tmp


def directory() -> TemporaryDirectory[str]:
    """A new directory, gone afterwards; on a disk where the system has no place in memory."""
    there = os.access(_SHARED_MEMORY, os.W_OK | os.X_OK)
    return TemporaryDirectory(dir=_SHARED_MEMORY if there else None)
