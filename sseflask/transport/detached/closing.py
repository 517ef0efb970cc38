"""Sockets that are done with: when their descriptors may be closed, and how."""

from __future__ import annotations

import contextlib
import math
import os
import socket
import time
from collections.abc import Callable, Iterator

from sseflask.transport.sockets import LINGER_SECONDS, borrowed, reset_when_closed

__all__ = ["Closing"]


class Closing:
    """Closes descriptors, each when it is safe. The loop's thread only; never blocks.

    Args:
        on_close: called for each descriptor that has been closed.
    """

    def __init__(self, on_close: Callable[[], object]) -> None:
        self._on_close = on_close
        self._lingering: dict[int, float] = {}
        self._kept = False
        self._doomed: list[int] = []

    def __len__(self) -> int:
        """How many are not closed yet."""
        return len(self._lingering) + len(self._doomed)

    @contextlib.contextmanager
    def descriptors_kept(self) -> Iterator[None]:
        """Close none meanwhile: its number could be somebody else's while it is written to."""
        self._kept = True
        try:
            yield
        finally:
            self._kept = False
            doomed, self._doomed = self._doomed, []
            for descriptor in doomed:
                self.close(descriptor)

    def close(self, descriptor: int) -> None:
        """Close a descriptor, as soon as none has to be kept."""
        if self._kept:
            self._doomed.append(descriptor)
            return
        with contextlib.suppress(OSError):
            os.close(descriptor)
        self._on_close()

    def reset(self, descriptor: int) -> None:
        """Give up on a client that takes nothing."""
        with contextlib.suppress(OSError), borrowed(descriptor) as client:
            reset_when_closed(client)
        self.close(descriptor)

    def half_close(self, descriptor: int) -> None:
        """All is sent: close our side, and give the client a little time to close its own."""
        try:
            with borrowed(descriptor) as client:
                client.shutdown(socket.SHUT_WR)
        except OSError:  # the client was faster
            self.close(descriptor)
        else:
            self._lingering[descriptor] = time.monotonic() + LINGER_SECONDS

    def client_closed(self, descriptor: int) -> None:
        """The client has closed its side of one that was half closed, or of none of those."""
        if self._lingering.pop(descriptor, None) is not None:
            self.close(descriptor)

    def close_overdue(self, now: float) -> None:
        """Close those whose clients have had their time."""
        for descriptor, due in list(self._lingering.items()):
            if now < due:
                return  # they are in the order of their ends
            self.client_closed(descriptor)

    def next(self) -> float:
        """The monotonic time at which `close_overdue` is to be called; infinite for never."""
        return next(iter(self._lingering.values()), math.inf)
