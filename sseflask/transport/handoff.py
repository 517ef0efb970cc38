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
from typing import Any
from weakref import WeakKeyDictionary

__all__ = ["Mailbox", "Timeout", "cooperative", "result_of"]

log = logging.getLogger("sseflask")

Done = Callable[[Any, Exception | None], None]

_mailboxes: WeakKeyDictionary[Any, Mailbox] = WeakKeyDictionary()


class Timeout(Exception):
    """The native thread has not answered in time."""


def cooperative() -> bool:
    """Whether gevent has put its greenlets in the place of threads in this process."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


class Mailbox:
    """Has an event loop call functions for other threads; what comes together wakes it once."""

    def __init__(self, loop: Any) -> None:
        self._loop = loop
        self._posted: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._signalled = False

    @classmethod
    def current(cls) -> Mailbox:
        """That of the calling thread's event loop."""
        import gevent

        hub = gevent.get_hub()
        mailbox = _mailboxes.get(hub)
        if mailbox is None:
            mailbox = _mailboxes[hub] = cls(hub.loop)
        return mailbox

    def post(self, function: Callable[..., object], *arguments: Any) -> None:
        """Have the loop call a function that does not block. Any thread; never blocks."""
        self._posted.append((function, arguments))
        if not self._signalled:
            self._signalled = True
            self._loop.run_callback_threadsafe(self._call)

    def _call(self) -> None:
        # First, so that who posts from here on wakes the loop again.
        self._signalled = False
        while self._posted:
            function, arguments = self._posted.popleft()
            try:
                function(*arguments)
            except Exception:
                log.exception("a message of the channel log's thread failed")


def result_of(start: Callable[[Done], None], seconds: float) -> Any:
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

    mailbox = Mailbox.current()
    answer: AsyncResult[Any] = AsyncResult()

    def resolve(result: Any, error: Exception | None) -> None:
        if error is None:
            answer.set(result)
        else:
            answer.set_exception(error)

    start(lambda result, error: mailbox.post(resolve, result, error))
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
