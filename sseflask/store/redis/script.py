"""Lua scripts: files beside this module, which Redis runs as one step."""

from __future__ import annotations

import hashlib
from pathlib import Path

_FOLDER = Path(__file__).with_name("lua")


class Script:
    """A script of one or several files of ``lua/``; later ones see the functions of earlier ones.

    A script gets its keys as ``KEYS`` and the rest as ``ARGV``. Keys that it makes itself begin
    with the server's prefix, so they are in the same slot of a cluster.
    """

    def __init__(self, *files: str) -> None:
        self.name = files[-1]
        self.text = "\n".join((_FOLDER / file).read_text("utf-8") for file in files)
        # Redis names scripts so; nothing is kept secret by it.
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
