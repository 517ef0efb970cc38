"""Callbacks into the event loop, waiting for them, and giving way to it; see `sseflask.loop`."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

log = logging.getLogger("sseflask")

#: Seconds after which a wait in another thread than the main one is begun again.
_WAIT_SECONDS = 3600.0

#: Seconds that another thread waits for the main thread's loop.
_MAIN_SECONDS = 60.0

#: What a descriptor is watched for: libev's EV_READ.
_READ = 1

#: Seconds after which other greenlets get a turn.
_SLICE = 0.002

Done = Callable[[Any, Exception | None], None]
"""Takes a result, or an exception in its place."""

Value = TypeVar("Value")

_event_loops: WeakKeyDictionary[Any, EventLoop] = WeakKeyDictionary()


class Timeout(Exception):
    """There was no answer in time."""


def cooperative() -> bool:
    """Whether gevent has replaced this process's threads by greenlets (monkey-patching)."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def _hub() -> Any:
    """gevent's hub of the calling thread, whose loop it runs in; ``None`` without gevent."""
    if not cooperative():
        return None
    import gevent

    return gevent.get_hub()


def call_later(seconds: float, function: Callable[[], object]) -> Callable[[], None]:
    """Call a function that does not block after some seconds. Returns what cancels the call.

    Under gevent by the calling thread's event loop, elsewhere by a ``threading.Timer``.
    """
    hub = _hub()
    if hub is None:
        thread = threading.Timer(seconds, function)
        thread.daemon = True
        thread.start()
        return thread.cancel
    timer = hub.loop.timer(max(0.001, seconds), ref=False)

    def fire() -> None:
        timer.close()
        function()

    timer.start(fire)
    close: Callable[[], None] = timer.close
    return close


def call_in_main_loop_later(seconds: float, function: Callable[[], object]) -> None:
    """Call a function that does not block after some seconds, in the main thread's event loop.

    Any thread, also one that does not live so long; never blocks. Without gevent the function is
    called by a ``threading.Timer``.
    """
    hub = _hub()
    if hub is None or hub.main_hub:
        call_later(seconds, function)
    else:
        # A timer belongs to a loop that goes on, and only its own thread may touch it.
        EventLoop.main().call_soon_threadsafe(call_later, seconds, function)


class EventLoop:
    """Calls functions in an event loop for other threads; calls that come together wake it once.

    Without gevent there is no event loop: functions are called at once, in the calling thread.
    """

    def __init__(self, loop: Any = None) -> None:
        self._loop = loop
        self._calls: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._signalled = False

    @classmethod
    def current(cls) -> EventLoop:
        """The event loop of the calling thread."""
        hub = _hub()
        if hub is None:
            return _NO_LOOP
        event_loop = _event_loops.get(hub)
        if event_loop is None:
            event_loop = _event_loops[hub] = cls(hub.loop)
        return event_loop

    @staticmethod
    def main() -> EventLoop:
        """The event loop of the main thread.

        Raises `RuntimeError` if that thread has never asked for its own, see `register_main_loop`.
        """
        for hub, event_loop in list(_event_loops.items()):
            if hub.main_hub:
                return event_loop
        raise RuntimeError(
            "channels or completions were made and used in threads other than the main one only: "
            "make them, or use them once, in a greenlet of the main thread before"
        )

    def call_soon_threadsafe(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call a function that does not block, in the loop. Any thread; never blocks.

        Functions are called in the order of these calls. What they raise is logged.
        """
        if self._loop is None:
            _call(function, arguments)
            return
        self._calls.append((function, arguments))
        if not self._signalled:
            self._signalled = True
            self._loop.run_callback_threadsafe(self.run_pending)

    def watch(self, descriptor: int, function: Callable[[], object]) -> Callable[[], None] | None:
        """Call a function that does not block whenever a descriptor can be read; in the loop.

        In the loop's thread only. Returns what ends that, to be called there before the descriptor
        is closed. ``None`` if there is no event loop: then nothing is watched.
        """
        if self._loop is None:
            return None
        watcher = self._loop.io(descriptor, _READ, ref=False)
        watcher.start(function)
        close: Callable[[], None] = watcher.close
        return close

    def run_pending(self) -> None:
        """Run what is waiting for the loop: in a callback of it, or when it no longer runs."""
        # First, so that a call that comes from here on wakes the loop again.
        self._signalled = False
        while self._calls:
            _call(*self._calls.popleft())


_NO_LOOP = EventLoop()


def _call(function: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    try:
        function(*arguments)
    except Exception as error:
        call_outside_loop(partial(log.error, "a callback in the event loop failed", exc_info=error))


def call_guarded(what: str, function: Callable[..., object], *arguments: object) -> None:
    """Call a function whose errors must not end the caller: they are logged.

    ``what`` says whose errors they are.
    """
    try:
        function(*arguments)
    except Exception:
        log.exception("%s failed", what)


def call_outside_loop(function: Callable[..., object], *arguments: Any) -> None:
    """Call a function that may block, such as one that logs while a native thread does so too.

    In a callback of the event loop that raises: then the function is called in a greenlet of its
    own, soon. Elsewhere it is called at once.
    """
    hub = _hub()
    if hub is None:
        function(*arguments)
        return
    import gevent

    if gevent.getcurrent() is hub:
        gevent.spawn(function, *arguments)
    else:
        function(*arguments)


def register_main_loop() -> None:
    """Make the main thread's event loop known, so that any thread may be the first to need it.

    Called in that thread by what needs the loop later. Without effect elsewhere and without gevent.
    """
    hub = _hub()
    if hub is not None and hub.main_hub:
        EventLoop.current()


def wait_for_event(changed: threading.Event, timeout: float | None) -> None:
    """Block the calling greenlet or thread until an event is set, which any thread may do.

    May return early; the caller looks again. Without ``timeout`` it takes as long as it takes.
    """
    # The loop of another thread knows of nothing that could set it, and would raise LoopExit.
    if timeout is None and (hub := _hub()) is not None and not hub.main_hub:
        timeout = _WAIT_SECONDS
    changed.wait(timeout)


def run_in_main_loop(function: Callable[[], Value]) -> Value:
    """Call a function that does not block in the main thread's event loop, and return its result.

    Any thread; blocks until it is done. Without gevent it is called at once.
    """
    hub = _hub()
    if hub is not None and not hub.main_hub:
        result: Value = wait_for_callback(
            lambda done: EventLoop.main().call_soon_threadsafe(_call_back, function, done),
            _MAIN_SECONDS,
        )
        return result
    EventLoop.current()  # from here on known to the other threads
    return function()


def _call_back(function: Callable[[], object], done: Done) -> None:
    try:
        result = function()
    except Exception as error:
        done(None, error)
    else:
        done(result, None)


def wait_for_callback(start: Callable[[Done], None], seconds: float) -> Any:
    """Start something that calls back, and return its result, or raise the error in its place.

    Blocks the calling greenlet or thread only. Any thread. ``start`` is given a function, which is
    to be called once, by any thread. Raises `Timeout` if that was not done within the seconds; what
    was started goes on.
    """
    event_loop = EventLoop.current()
    answered = threading.Event()  # gevent's, which only the event loop may set, if it has patched
    answer: list[tuple[Any, Exception | None]] = []

    def done(result: Any, error: Exception | None) -> None:
        answer.append((result, error))
        event_loop.call_soon_threadsafe(answered.set)

    start(done)
    if not answered.wait(seconds):
        raise Timeout
    result, error = answer[0]
    if error is not None:
        raise error
    return result


class TimeSlice:
    """Called between pieces of one work: yields to gevent's loop if the slice is over."""

    def __init__(self) -> None:
        self._cooperative = cooperative()
        self._until = time.monotonic() + _SLICE

    def __call__(self) -> None:
        if self._cooperative and time.monotonic() > self._until:
            yield_to_loop()
            self._until = time.monotonic() + _SLICE


def yield_to_loop() -> None:
    """Suspend the calling greenlet for a turn of the loop, so that all others get theirs."""
    import gevent

    hub = gevent.get_hub()
    # A zero timer and not sleep(0): the latter can come back before the loop looked at I/O.
    hub.wait(hub.loop.timer(0))
