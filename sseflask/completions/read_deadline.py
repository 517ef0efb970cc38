"""Cuts the connection of an upstream that is silent for too long."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from typing import Any

import httpx2

from sseflask.loop import native
from sseflask.loop.callbacks import call_later

__all__ = ["ReadDeadline"]


class ReadDeadline:
    """While it is entered, it cuts a response's connection if it is not extended in time.

    The blocked read then ends as if the upstream had closed the connection. The client's own read
    timeout would cost a timer for every read; this is one timer, which looks back when it fires.
    Without a connection (the demo model's) nothing is cut.

    Args:
        response: the response that is read.
        seconds: the time from one call of `extend` to the next.

    Attributes:
        passed: the connection was cut.
    """

    def __init__(self, response: httpx2.Response, seconds: float) -> None:
        stream = response.extensions.get("network_stream")
        self._socket: Any = stream.get_extra_info("socket") if stream is not None else None
        self._seconds = seconds
        self._since = 0.0
        self._paused = False
        self._stop_timer: Callable[[], None] | None = None
        # A native lock also under gevent: nothing waits while it is held.
        self._lock: Any = native.lock()
        self.passed = False

    def extend(self) -> None:
        """Give the upstream all its time from now on."""
        self._since = time.monotonic()
        self._paused = False

    def pause(self) -> None:
        """Stop the clock while nobody reads. It starts again with `extend` or `resume`."""
        self._paused = True

    def resume(self) -> None:
        """Start the clock again."""
        self._paused = False

    def shorten(self, seconds: float) -> None:
        """Give the upstream only so much time from now on, if it had more."""
        with self._lock:
            if seconds < self._seconds and self._stop_timer is not None:
                self._stop_timer()
                self._seconds = seconds
                self._since = time.monotonic()
                self._start_timer(seconds)

    def __enter__(self) -> ReadDeadline:
        self.extend()
        if self._socket is not None:
            self._start_timer(self._seconds)
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:  # the connection's next request is not cut
            stop, self._stop_timer = self._stop_timer, None
        if stop is not None:
            stop()

    def _start_timer(self, seconds: float) -> None:
        self._stop_timer = call_later(seconds, self._check)

    def _check(self) -> None:
        with self._lock:
            if self._stop_timer is None:
                return
            if self._paused:
                self._since = time.monotonic()
            left = self._since + self._seconds - time.monotonic()
            if left > 0:
                self._start_timer(left)
                return
            self.passed = True
            with contextlib.suppress(OSError):  # closed in the same moment
                # An SSLSocket's own shutdown would drop the TLS layer, by which somebody reads.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
