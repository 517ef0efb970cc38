"""Imported by every Python that finds this folder on its path: tells what its memory was taken for.

At the signal it begins to trace allocations (tracemalloc). At the next one it writes those that are
still there into the folder named in the environment, as `benchmarks.memory_layers` reads them.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import tracemalloc
from types import FrameType

_FRAMES = 25


def _saved_stacks() -> int:
    """Give the bytes of C's stack that are kept for greenlets that wait."""
    greenlet = sys.modules.get("greenlet")
    if greenlet is None:
        return 0
    return sum(
        each._stack_saved for each in gc.get_objects() if isinstance(each, greenlet.greenlet)
    )


def _write(path: str, found: object) -> None:
    with open(f"{path}.new", "w") as file:  # noqa: PTH123  # pathlib would be imported for this alone
        json.dump(found, file)
    os.replace(f"{path}.new", path)  # noqa: PTH105  # as above


def _install(folder: str) -> None:
    before = 0

    def handle(_number: int, _frame: FrameType | None) -> None:
        nonlocal before
        path = f"{folder}/{os.getpid()}"
        if not tracemalloc.is_tracing():
            before = _saved_stacks()
            tracemalloc.start(_FRAMES)
            _write(f"{path}.begun", None)
            return
        snapshot = tracemalloc.take_snapshot()
        tracemalloc.stop()
        sizes = [
            (found.size, [frame.filename for frame in found.traceback])
            for found in snapshot.statistics("traceback")
        ]
        _write(f"{path}.ended", {"stacks": _saved_stacks() - before, "sizes": sizes})

    signal.signal(signal.SIGRTMIN, handle)


if "BENCHMARK_MEMORY" in os.environ:
    _install(os.environ["BENCHMARK_MEMORY"])
