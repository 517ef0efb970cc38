"""Sockets of streams that have ended: each is closed when it is safe."""

from __future__ import annotations

import contextlib
import math
import os
import socket
import time
from collections.abc import Callable, Iterator

from sseflask.transport.sockets import LINGER_SECONDS, borrowed, reset_when_closed


class ClosingSockets:
    """Closes descriptors. The loop's thread only; never blocks.

    Attributes:
        on_close: called for each descriptor that has been closed.
    """

    def __init__(self, on_close: Callable[[], object]) -> None:
        self.on_close = on_close
        self._lingering: dict[int, float] = {}
        self._postponed: list[int] | None = None

    def __len__(self) -> int:
        """How many are not closed yet."""
        return len(self._lingering) + len(self._postponed or ())

    @contextlib.contextmanager
    def postponed(self) -> Iterator[None]:
        """Close none meanwhile: its number could be another socket's while it is written to."""
        self._postponed = []
        try:
            yield
        finally:
            descriptors, self._postponed = self._postponed, None
            for descriptor in descriptors:
                self.close(descriptor)

    def close(self, descriptor: int) -> None:
        """Close a descriptor, unless that is postponed."""
        if self._postponed is not None:
            self._postponed.append(descriptor)
            return
        with contextlib.suppress(OSError):
            os.close(descriptor)
        self.on_close()

    def reset(self, descriptor: int) -> None:
        """Cut a client that takes nothing."""
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
        """The client has closed its side of a descriptor, which may be half closed here."""
        if self._lingering.pop(descriptor, None) is not None:
            self.close(descriptor)

    def close_overdue(self, now: float) -> None:
        """Close those whose clients have had their time."""
        while self.next() <= now:
            self.client_closed(next(iter(self._lingering)))

    def next(self) -> float:
        """The monotonic time at which `close_overdue` is to be called; infinite for never."""
        return next(iter(self._lingering.values()), math.inf)  # in the order of their ends
