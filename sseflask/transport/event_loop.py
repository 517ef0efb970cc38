"""gevent's event loop, below its public interface: the only module of the transports that uses it.

`gevent.get_hub().loop` has watchers and callbacks that cost a fraction of a greenlet each. Their
names have been the same since gevent 1.0, but gevent does not document when one runs after another:
`WaitHook` therefore tries that out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import gevent
import gevent.socket

from sseflask.logs.once import warn_once

#: What a descriptor is watched for: libev's EV_READ and EV_WRITE.
READ, WRITE = 1, 2

#: How often the order of the loop is tried out: in a turn with much to do gevent leaves some
#: callbacks to the next one.
_TRIALS = 10

#: The shortest time of a timer, in seconds: gevent takes 0 for "in this turn".
_SHORTEST = 0.001


class Watcher(Protocol):
    """Lets the loop call a function that does not block. `close` is final, harmless to repeat."""

    @property
    def active(self) -> bool: ...
    def start(self, callback: Callable[[], object]) -> None: ...
    def stop(self) -> None: ...
    def close(self) -> None: ...


def watch(descriptor: int, events: int) -> Watcher:
    """Make a watcher for a descriptor, not started. It must be closed before the descriptor is."""
    loop: Any = gevent.get_hub().loop
    watcher: Watcher = loop.io(descriptor, events)
    return watcher


def read_watcher(client: gevent.socket.socket) -> Watcher:
    """Give the watcher that a socket has for reading: it is free while no greenlet reads.

    The socket closes it. It is to be stopped before a greenlet reads again.
    """
    watcher: Watcher = client._read_event  # type: ignore[attr-defined]  # private
    return watcher


def start_timer(
    seconds: float, callback: Callable[[], object], *, keeps_loop: bool = True
) -> Watcher:
    """Let the loop call a function that does not block, once, after some seconds.

    Unless the timer ``keeps_loop``, the loop may end before.
    """
    loop: Any = gevent.get_hub().loop
    timer: Watcher = loop.timer(max(_SHORTEST, seconds), ref=keeps_loop)
    timer.start(callback)
    return timer


def run_soon(callback: Callable[[], object]) -> None:
    """Let the loop call a function that does not block, after what is due already."""
    gevent.get_hub().loop.run_callback(callback)


def turn_began() -> float:
    """The Unix time at which the loop's current turn began: its clock stands still in a turn."""
    began: float = gevent.get_hub().loop.now()
    return began


def throw(greenlet: Any, error: type[BaseException]) -> None:
    """Raise an exception in a greenlet that waits, at once. Only in a callback of the loop.

    `gevent.Greenlet.kill` has the same effect one turn later, when the greenlet may be anywhere.
    """
    greenlet.throw(error)


def _warn_about_order() -> None:
    warn_once(
        "This event loop does not call a prepare watcher after greenlets, as libev does: each "
        "event is sent by itself, which takes more processor time."
    )


class WaitHook:
    """Calls a function, which must not block, in each turn of the loop, after the greenlets.

    Only libev calls a watcher of negative priority after gevent's own callbacks. A default one runs
    before them: an event from a greenlet that wakes there would wait for the next timer (measured:
    200 ms). So the first turns try it out.

    Attributes:
        available: whether the loop has such a hook: libuv has none.
        reliable: whether the function is called after the greenlets of a turn. False in the first
            turns, and for good with a loop of another order.
    """

    def __init__(self, callback: Callable[[], object], priority: int = -2) -> None:
        self.reliable = False
        self._callback = callback
        self._trial = self._probe_sent = self._probe_ran = 0
        self._loop: Any = gevent.get_hub().loop
        try:
            self._watcher = self._loop.prepare(ref=False, priority=priority)
        except TypeError:
            self.available = False
            _warn_about_order()
        else:
            self.available = True
            self._watcher.start(self._begin_trial)

    def _begin_trial(self) -> None:
        # Behind this phase of the loop: what is sent within it may run after us in the same turn.
        self._trial += 1
        timer = self._loop.timer(0, ref=False)
        timer.start(self._send_probe, timer)
        self._watcher.stop()
        self._watcher.start(self._end_trial)
        self._callback()

    def _send_probe(self, timer: Watcher) -> None:
        timer.close()
        self._probe_sent = self._trial
        self._loop.run_callback(self._run_probe, self._trial)

    def _run_probe(self, trial: int) -> None:
        self._probe_ran = trial

    def _end_trial(self) -> None:
        if self._probe_sent == self._trial:
            self.reliable = self._probe_ran == self._trial
            if not self.reliable and self._trial < _TRIALS:
                self._begin_trial()
                return
            self._watcher.stop()
            self._watcher.start(self._callback)
            if not self.reliable:
                _warn_about_order()
        self._callback()
