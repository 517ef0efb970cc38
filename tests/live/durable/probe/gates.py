"""Gates that a test opens for a generator in whatever process it runs: a number in a file."""

from __future__ import annotations

import os
import time
from pathlib import Path

#: A generator that nobody lets go on ends by itself: no test leaves one behind.
_SECONDS = 90.0


def _path(directory: Path, tag: str) -> Path:
    return directory / f"{tag}.allowed"


def allow(directory: Path, tag: str, number: int) -> None:
    """Let the generators of a tag make this many items in all."""
    written = directory / f"{tag}.allowed.new"
    written.write_text(str(number))
    written.rename(_path(directory, tag))


def allowed(directory: Path, tag: str) -> int:
    try:
        return int(_path(directory, tag).read_text())
    except FileNotFoundError:
        return 0


def wait_until_allowed(tag: str, number: int) -> None:
    """Block until the test lets so many items be made.

    It looks again and again: the test is in another process, and the generator may be in any.
    """
    directory, until = Path(os.environ["PROBE_MARKS"]), time.monotonic() + _SECONDS
    while allowed(directory, tag) < number:
        if time.monotonic() > until:
            raise TimeoutError(f"{tag}: nobody has let item {number} be made")
        time.sleep(0.01)
