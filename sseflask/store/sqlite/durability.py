"""How long a file is kept, as far as the platform and the system tell."""

from __future__ import annotations

import os
import re
from pathlib import Path

from sseflask.defaults import MEMORY
from sseflask.platforms import loses_files
from sseflask.store.api import Durability

#: File systems in memory, and the writable layers of containers.
_EPHEMERAL = frozenset(["tmpfs", "ramfs", "overlay", "aufs"])

_OCTAL = re.compile(r"\\([0-7]{3})")


def durability_of(path: str) -> Durability:
    """How long a file is kept, by the platform and the file system of its folder."""
    if path == MEMORY:
        return "memory"
    if loses_files(os.environ):
        return "ephemeral"
    found, longest = "", -1
    place = os.path.realpath(path)
    for line in _mounts():
        # proc(5): the fifth field is the mount point, the one behind the dash the file system.
        fields, _, rest = line.partition(" - ")
        point = _OCTAL.sub(lambda code: chr(int(code[1], 8)), fields.split()[4])
        inside = place == point or place.startswith(f"{point.rstrip('/')}/")
        # Of two mounts on one point the later one is in use.
        if inside and len(point) >= longest:
            found, longest = rest.split()[0], len(point)
    return "ephemeral" if found in _EPHEMERAL else "disk"


def _mounts() -> list[str]:
    try:
        return Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return []
