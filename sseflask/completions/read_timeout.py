"""Cuts an upstream's connection when it has been silent for too long."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import httpx2

from sseflask.loop import native
from sseflask.loop.callbacks import call_later

__all__ = ["SilenceLimit"]


class SilenceLimit:
    """While it is entered, a response that brings nothing for ``seconds`` loses its connection.

    In place of the client's own read timeout, which costs a timer for every read; this is one
    timer for a whole answer, that looks back when it fires. The blocked read then ends as if the
    upstream had closed. Without a connection (the demo model's) nothing is ever cut.

    Args:
        response: whose connection to cut.
        seconds: how long it may be silent.

    Attributes:
        exceeded: the connection was cut.
        reading: somebody waits for the upstream now; while nobody does the time does not count.
    """

    def __init__(self, response: httpx2.Response, seconds: float) -> None:
        stream = response.extensions.get("network_stream")
        self._socket: Any = stream.get_extra_info("socket") if stream is not None else None
        self._seconds = seconds
        self._heard = 0.0
        self._cancel: Callable[[], None] | None = None
        # The native one also under gevent, where nobody waits for it.
        self._lock: Any = native.lock()
        self.exceeded = False
        self.reading = True

    def heard(self) -> None:
        """All that has arrived is dealt with: the next read begins."""
        self._heard = time.monotonic()
        self.reading = True

    def shorten(self, seconds: float) -> None:
        """Allow only so much silence from now on, if it was more. While it is entered."""
        with self._lock:
            if seconds >= self._seconds or self._cancel is None:
                return
            self._seconds = seconds
            self._heard = time.monotonic()
            self._cancel()
            self._wait(seconds)

    def __enter__(self) -> SilenceLimit:
        self.heard()
        if self._socket is not None:
            self._wait(self._seconds)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._lock:  # whoever has the connection next is not cut
            cancel, self._cancel = self._cancel, None
        if cancel is not None:
            cancel()

    def _wait(self, seconds: float) -> None:
        self._cancel = call_later(seconds, self._look)

    def _look(self) -> None:
        with self._lock:
            if self._cancel is None:
                return
            if not self.reading:
                self._heard = time.monotonic()
            left = self._heard + self._seconds - time.monotonic()
            if left > 0:
                self._wait(left)
                return
            self.exceeded = True
            with contextlib.suppress(OSError):  # closed in the same moment
                # Not TLS's own, which takes TLS off the socket while somebody reads by it.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
