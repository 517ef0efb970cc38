"""Writing one piece to many sockets, with a turn of the loop every few hundred of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from sseflask.loop.time_slice import yield_to_loop

__all__ = ["SLICE", "FanOut"]

#: Sends, and bytes, between two turns of the loop: about 2 ms.
SLICE, SLICE_BYTES = 256, 4 << 20


class FanOut:
    """Writes to sockets that never block. One greenlet only.

    Args:
        short: called at once with a descriptor that did not take all, the piece, and how many
            bytes of it were taken.
        gone: called at once with a descriptor that can't be written to any more.
    """

    def __init__(
        self, short: Callable[[int, bytes, int], object], gone: Callable[[int], object]
    ) -> None:
        self._short = short
        self._gone = gone
        self._unbroken = 0.0

    def write(self, data: bytes, descriptors: Sequence[int]) -> None:
        """Write a piece to each, letting the loop run in between: nobody may close any of them."""
        size, write = len(data), os.write
        at_once = min(SLICE, SLICE_BYTES // size) or 1
        for start in range(0, len(descriptors), at_once):
            part = descriptors[start : start + at_once]
            share = len(part) / at_once
            # Over several pieces: many small groups hold the loop as long as a large one.
            self._unbroken += share
            if self._unbroken > 1:
                self._unbroken = share
                yield_to_loop()
            for descriptor in part:
                try:
                    sent = write(descriptor, data)
                except BlockingIOError:
                    sent = 0
                except OSError:
                    self._gone(descriptor)
                    continue
                if sent != size:
                    self._short(descriptor, data, sent)
