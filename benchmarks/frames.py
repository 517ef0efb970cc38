"""The ready-made frames of the flood: servers send them, the client compares."""

from __future__ import annotations

PERIOD = 10_000
"""The numbers in the frames start again after this many; a client counts the total as well."""

FRAMES = tuple(b"data: flood %010d\n\n" % number for number in range(PERIOD))
WIDTH = len(FRAMES[0])
CYCLE = b"".join(FRAMES)
