"""Imported by every Python that finds this folder on its path: counts the calls it makes.

The file named in the environment holds three integers: functions written in Python that were
entered or resumed, functions written in C that they called, and whether to stop counting.
"""

from __future__ import annotations

import mmap
import os
import sys
import threading
from types import FrameType


def _install(path: str) -> None:
    with open(path, "r+b") as file:  # noqa: PTH123  # pathlib would be imported for this alone
        counts = memoryview(mmap.mmap(file.fileno(), 24)).cast("Q")

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        if event == "call":
            counts[0] += 1
        elif event == "c_call":
            counts[1] += 1
        if counts[2]:
            threading.setprofile(None)
            sys.setprofile(None)

    threading.setprofile(count)
    sys.setprofile(count)


if "BENCHMARK_CALLS" in os.environ:
    _install(os.environ["BENCHMARK_CALLS"])
