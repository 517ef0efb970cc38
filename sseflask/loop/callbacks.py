"""Where greenlets or threads wait for what a native thread does.

Under gevent nobody may wait with the locks that a native thread sets: the event loop would stand
still. So a native thread has the loop itself wake who waits.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

__all__ = [
    "Done",
    "EventLoop",
    "Timeout",
    "call_later",
    "cooperative",
    "register_main_loop",
    "run_in_main_loop",
    "wait_for_callback",
    "wait_for_event",
]

log = logging.getLogger("sseflask")

#: Seconds after which a wait in a thread of its own is begun again.
_WAIT_SECONDS = 3600.0

#: Seconds within which the main thread's loop comes to what another thread has for it.
_MAIN_SECONDS = 60.0

Done = Callable[[Any, Exception | None], None]
"""Gets a result or what was raised."""

Value = TypeVar("Value")

_event_loops: WeakKeyDictionary[Any, EventLoop] = WeakKeyDictionary()


class Timeout(Exception):
    """The native thread has not answered in time."""


def cooperative() -> bool:
    """Whether gevent has put its greenlets in the place of threads in this process."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def call_later(seconds: float, function: Callable[[], object]) -> Callable[[], None]:
    """Have a function that does not block called after some seconds, once.

    Under gevent by the calling thread's event loop, without the greenlet and the event of a
    ``threading.Timer``; elsewhere by such a timer.

    Returns:
        what cancels it; harmless afterwards.
    """
    if not cooperative():
        thread = threading.Timer(seconds, function)
        thread.daemon = True
        thread.start()
        return thread.cancel
    import gevent

    timer = gevent.get_hub().loop.timer(max(0.001, seconds), ref=False)

    def fire() -> None:
        timer.close()
        function()

    timer.start(fire)
    close: Callable[[], None] = timer.close
    return close


class EventLoop:
    """Has an event loop call functions for other threads; what comes together wakes it once."""

    def __init__(self, loop: Any) -> None:
        self._loop = loop
        self._calls: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._signalled = False

    @classmethod
    def current(cls) -> EventLoop:
        """That of the calling thread's event loop."""
        import gevent

        hub = gevent.get_hub()
        event_loop = _event_loops.get(hub)
        if event_loop is None:
            event_loop = _event_loops[hub] = cls(hub.loop)
        return event_loop

    @staticmethod
    def main() -> EventLoop:
        """That of the main thread's event loop.

        Raises:
            RuntimeError: that thread has never asked for its own, see `register_main_loop`.
        """
        for hub, event_loop in list(_event_loops.items()):
            if hub.main_hub:
                return event_loop
        raise RuntimeError(
            "channels or completions were made and used in threads other than the main one only: "
            "make them, or use them once, in a greenlet of the main thread before"
        )

    def call_soon_threadsafe(self, function: Callable[..., object], *arguments: Any) -> None:
        """Have the loop call a function that does not block. Any thread; never blocks."""
        self._calls.append((function, arguments))
        if not self._signalled:
            self._signalled = True
            self._loop.run_callback_threadsafe(self._call)

    def _call(self) -> None:
        # First, so that who posts from here on wakes the loop again.
        self._signalled = False
        while self._calls:
            function, arguments = self._calls.popleft()
            try:
                function(*arguments)
            except Exception:
                log.exception("a message of a log's thread failed")


def register_main_loop() -> None:
    """Make the main thread's loop known, so that any thread may be the first to need it.

    Called in that thread by what needs a loop later. Without effect elsewhere and without gevent.
    """
    if cooperative():
        import gevent

        if gevent.get_hub().main_hub:
            EventLoop.current()


def wait_for_event(changed: threading.Event, timeout: float | None) -> None:
    """Block the calling greenlet or thread until an event is set, which any thread may do.

    May return early; the caller looks again.

    Args:
        changed: the event.
        timeout: seconds; ``None`` for as long as it takes.
    """
    if timeout is None and cooperative():
        import gevent

        # The loop of another thread knows of nothing that could set it, and would raise LoopExit.
        if not gevent.get_hub().main_hub:
            timeout = _WAIT_SECONDS
    changed.wait(timeout)


def run_in_main_loop(function: Callable[[], Value]) -> Value:
    """Call a function that does not block where subscribers are served: under gevent, in the main
    thread's loop. Any thread; blocks until it is done."""
    if cooperative():
        import gevent

        if not gevent.get_hub().main_hub:
            return _elsewhere(function, EventLoop.main())
        EventLoop.current()  # from here on known to the other threads
    return function()


def _elsewhere(function: Callable[[], Value], event_loop: EventLoop) -> Value:
    def call(done: Done) -> None:
        try:
            result = function()
        except Exception as error:
            done(None, error)
        else:
            done(result, None)

    value: Value = wait_for_callback(
        lambda done: event_loop.call_soon_threadsafe(call, done), _MAIN_SECONDS
    )
    return value


def wait_for_callback(start: Callable[[Done], None], seconds: float) -> Any:
    """Have something done in a native thread, and wait for what comes of it.

    Blocks the calling greenlet or thread only. Any thread.

    Args:
        start: hands it over; what it is given is called once, in the native thread, with the
            result or an exception.
        seconds: how long to wait.

    Returns:
        the result.

    Raises:
        Timeout: nothing came in time; what was started goes on.
        Exception: the one that came.
    """
    return _in_loop(start, seconds) if cooperative() else _in_thread(start, seconds)


def _in_loop(start: Callable[[Done], None], seconds: float) -> Any:
    from gevent.event import AsyncResult

    event_loop = EventLoop.current()
    answer: AsyncResult[Any] = AsyncResult()

    def resolve(result: Any, error: Exception | None) -> None:
        if error is None:
            answer.set(result)
        else:
            answer.set_exception(error)

    start(lambda result, error: event_loop.call_soon_threadsafe(resolve, result, error))
    answer.wait(seconds)
    if not answer.ready():
        raise Timeout
    return answer.get(block=False)


def _in_thread(start: Callable[[Done], None], seconds: float) -> Any:
    answered = threading.Event()
    answer: list[tuple[Any, Exception | None]] = []

    def done(result: Any, error: Exception | None) -> None:
        answer.append((result, error))
        answered.set()

    start(done)
    if not answered.wait(seconds):
        raise Timeout
    result, error = answer[0]
    if error is not None:
        raise error
    return result
