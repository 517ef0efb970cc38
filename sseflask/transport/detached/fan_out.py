"""Writing one piece to many sockets, with a turn of the loop every few hundred of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from sseflask.loop.time_slice import yield_to_loop

#: Sends, and bytes, between two turns of the loop: about 2 ms.
SLICE, SLICE_BYTES = 256, 4 << 20

#: In place of how much was sent: the socket can't be written to any more.
GONE = -1


class FanOut:
    """Writes to sockets that never block. One greenlet only."""

    def __init__(self) -> None:
        self._unbroken = 0.0

    def write(self, data: bytes, descriptors: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Write a piece to each, letting the loop run in between: none may be closed meanwhile.

        Returns:
            at once each descriptor that did not take all, and how much it took, or `GONE`.
        """
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
                    sent = GONE
                if sent != size:
                    yield descriptor, sent
