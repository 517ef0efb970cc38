"""Where greenlets or threads wait for what a native thread does.

Under gevent nobody may wait with the locks that a native thread sets: the event loop would stand
still. So a native thread has the loop itself wake who waits.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

__all__ = ["Timeout", "cooperative", "result_of"]

Done = Callable[[Any, Exception | None], None]


class Timeout(Exception):
    """The native thread has not answered in time."""


def cooperative() -> bool:
    """Whether gevent has put its greenlets in the place of threads in this process."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


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
    import gevent
    from gevent.event import AsyncResult

    loop: Any = gevent.get_hub().loop
    answer: AsyncResult[Any] = AsyncResult()

    def resolve(result: Any, error: Exception | None) -> None:
        if error is None:
            answer.set(result)
        else:
            answer.set_exception(error)

    start(lambda result, error: loop.run_callback_threadsafe(resolve, result, error))
    if not answer.wait(seconds) and not answer.ready():
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
