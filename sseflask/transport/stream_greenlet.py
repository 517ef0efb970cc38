"""The greenlet of one stream, as watchers of the event loop reach it."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from typing import Any

import gevent
from gevent.event import Event as Signal

from sseflask.loop.callbacks import yield_to_loop
from sseflask.transport import event_loop

#: Bytes that a stream may buffer before its generator waits for the client.
BUFFER = 65536


class Killed(GeneratorExit):
    """Raised in an iterable that blocks, when its stream is to end: as if a generator is closed."""


@dataclass(slots=True, eq=False)
class StreamGreenlet:
    """The calling greenlet, which advances a stream's iterable or waits for its client.

    Attributes:
        may_end: the stream may have to end, so it gives way at its next item.
        client_left: nothing can be sent any more: the client has left, or the socket is given back.
        half_closed: the client has closed its side. It counts as leaving, but may still read.
        timed_out: the system has ended the connection, as the client acknowledged nothing.
    """

    advancing: bool = False
    may_end: bool = False
    stopping: bool = False
    client_left: bool = False
    half_closed: bool = False
    timed_out: bool = False
    greenlet: Any = field(default_factory=gevent.getcurrent)
    _signal: Signal | None = None
    _waiting: bool = False

    # -- the greenlet itself -----------------------------------------------------------------------

    def wait(self, seconds: float | None = None) -> None:
        """Block until the next `wake`, or for some seconds."""
        self._signal = Signal()
        self.wait_for(self._signal, seconds)

    def wait_for(self, signal: Signal, seconds: float | None = None) -> None:
        """Block until a signal comes, or for some seconds."""
        self._waiting = True
        try:
            signal.wait(seconds)
        finally:
            self._waiting = False

    def yield_to_loop(self) -> None:
        self._waiting = True
        try:
            yield_to_loop()
        finally:
            self._waiting = False

    # -- watchers, timers, other greenlets: they never block ---------------------------------------

    def wake(self) -> None:
        """End the wait that it is in, if it is in one."""
        if self._signal is not None:
            self._signal.set()

    def stop(self) -> None:
        """End the stream: at its next item, or in the iterable if that blocks."""
        self.stopping = True
        self.may_end = True
        self.wake()
        if self.advancing:
            # As a loop callback, after those that are due: the iterable may yield before it.
            event_loop.run_soon(self._kill)

    def client_gone(self, error: OSError | None = None) -> None:
        """The client has left, as reading or writing has shown."""
        if error is not None:
            self.note_error(error)
        if not self.client_left:
            self.client_left = True
            self.stop()

    def note_error(self, error: OSError) -> None:
        """Note what reading or writing has raised: the system reports a timeout once."""
        self.timed_out = self.timed_out or error.errno == errno.ETIMEDOUT

    def _kill(self) -> None:
        # Only into the application's code, and only once: thrown later it would hit whatever
        # the greenlet does next, the connection's next request for one.
        if self.advancing and not self._waiting:
            self.advancing = False
            event_loop.throw(self.greenlet, Killed)
