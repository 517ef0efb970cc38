"""One native thread for each process that owns a store, so that nobody else waits for a disk.

Under gevent the event loop never touches the store: greenlets hand calls over and go on when the
result is there.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from sseflask.loop.native import original
from sseflask.store.api import StoreError
from sseflask.store.sqlite.wakeup import WakeupSocket

__all__ = ["Chore", "Done", "Store", "StoreThread"]

log = logging.getLogger("sseflask")

#: Seconds after which the thread looks for what no wakeup has told it of, and tries again to open a
#: store that can't be opened.
LOOK_SECONDS = 0.25

#: Seconds between two rounds of forgetting.
TRIM_SECONDS = 10.0

Done = Callable[[Any, Exception | None], None]
"""Gets a call's result or what it raised, in the store's thread; must not block."""


class Store(Protocol):
    """What the thread itself does with a store. All calls come from it."""

    def open(self) -> None:
        """Make it usable, creating it where it is not there."""

    def close(self) -> None:
        """Let go of it; harmless when it is not open."""

    def changed(self) -> bool:
        """Whether other processes may have added something since it was last read."""

    def replaced(self) -> bool:
        """Whether what was opened is gone, so that it has to be closed and opened again."""

    def trim(self) -> int:
        """Forget a bounded number of things that are too old; give how many."""


StoreType = TypeVar("StoreType", bound=Store)


class Chore(Generic[StoreType]):
    """Something to do again and again.

    Args:
        doing: what it is, for the server's log.
        seconds: from one time to the next; where the function returns something true, it is called
            again as soon as the others have been served.
        function: called with the store.
    """

    def __init__(self, doing: str, seconds: float, function: Callable[[StoreType], object]) -> None:
        self.doing = doing
        self.seconds = seconds
        self.function = function
        self.due = 0.0


class StoreThread(Generic[StoreType]):
    """Runs everything that concerns a store, in order, and passes on what others put there.

    To be made after fork, and started with `start`. The callbacks are called in the thread and
    must not block; what they raise is logged.

    Args:
        name: what the store is called in messages.
        make: makes the store, not yet open; called once, in the thread.
        wakeup: rings when another process has written; the thread closes it.
    """

    def __init__(self, name: str, make: Callable[[], StoreType], wakeup: WakeupSocket) -> None:
        self.name = name
        self._make = make
        self._wakeup = wakeup
        self._calls: deque[tuple[Any, Done]] = deque()
        self._open = False
        self._try_at = self._hang_at = 0.0
        self._rung = False
        self._chores: list[Chore[StoreType]] = [
            Chore("trimming", TRIM_SECONDS, lambda store: store.trim())
        ]
        self._error: Exception = StoreError(f"the {name} is not open yet")
        self._told: dict[str, str] = {}
        self._closing = False
        self._ended = False
        self._running = original("_thread", "allocate_lock")()
        self._running.acquire()

    def start(self) -> None:
        """Start the thread; once."""
        # Not threading.Thread: under gevent that starts a greenlet, whoever asks for the original.
        original("_thread", "start_new_thread")(self._run, ())

    def call(self, function: Callable[[StoreType], Any], done: Done) -> None:
        """Have a function called with the store, after what was handed over before. Never blocks.

        Whatever it raises reaches ``done``; `StoreError` where the store is not open or closed.
        """
        self._hand_over(function, done)

    def pause(self, seconds: float) -> Callable[[], object] | None:
        """Have the store closed while the process is copied, as by ``os.fork``.

        A copy of an open SQLite database takes the locks of the first process for its own, and
        what the two of them write for whole. Blocks the native thread.

        Args:
            seconds: how long to wait for what the thread does now.

        Returns:
            what has to be called afterwards, for it to be opened again; ``None`` where the thread
            did not let go in time, or has ended.
        """
        closed, go_on = (original("_thread", "allocate_lock")() for _ in range(2))
        closed.acquire()
        go_on.acquire()

        def wait(store: StoreType) -> None:
            self._open = False
            self._try_at = 0.0
            store.close()
            closed.release()
            go_on.acquire()
            self._look(store)

        def over(_result: Any, error: Exception | None) -> None:
            if error is not None:  # it is not open, or ends
                closed.release()

        self.call(wait, over)
        pause: bool = closed.acquire(timeout=seconds)
        if not pause:
            go_on.release()  # when it comes to it after all
        release: Callable[[], object] = go_on.release
        return release if pause else None

    def close(self) -> None:
        """End the thread after what was handed over before, and close the store. Never blocks."""
        self._closing = True
        self._wakeup.wake()

    def join(self, seconds: float) -> bool:
        """Wait until the thread has ended, and whether it has. Blocks the native thread."""
        ended: bool = self._running.acquire(timeout=seconds)
        if ended:
            self._running.release()
        return ended

    def _hand_over(self, call: Any, done: Done) -> None:
        self._calls.append((call, done))
        if self._ended:
            self._refuse()
        else:
            self._wakeup.wake()

    def _refuse(self) -> None:
        """Answer what came too late; each call once, whichever threads do it."""
        while self._calls:
            try:
                _, done = self._calls.popleft()
            except IndexError:
                return
            self._guard(done, None, StoreError(f"the {self.name} is closed"))

    # -- what a kind of store adds, in the thread --------------------------------------------------

    def _opened(self, store: StoreType) -> None:
        """The store has just been opened: see what has changed. May raise `StoreError`."""

    def _read(self, store: StoreType) -> None:
        """Others may have written: pass it on. May raise `StoreError`."""

    def _to_look(self) -> bool:
        """Whether to see now what others have written."""
        return True

    def _serve(self, store: StoreType) -> int:
        """Take the next calls, at least one, and say how many."""
        call, done = self._calls.popleft()
        self._call(store, call, done)
        return 1

    def _more(self) -> float | None:
        """When to go on with what else there is to do, as a time of `time.monotonic`."""
        return None

    def _go_on(self, store: StoreType) -> None:
        """Do a bounded part of that; called at each turn, after the calls."""

    def _ending(self) -> None:
        """Answer what is still under way: the thread ends."""

    # -- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        store: StoreType | None = None
        try:
            store = self._make()
            while not self._closing:
                now = time.monotonic()
                due = self._try_at
                if self._open:
                    due = min(now + LOOK_SECONDS, *(chore.due for chore in self._chores))
                more = self._more()
                if more is not None:
                    due = min(due, more)
                self._rung = self._wakeup.wait(0.0 if self._calls else due - now)
                self._turn(store)
            while self._calls:
                self._turn(store)
        except Exception:
            log.exception("the thread of the %s has ended", self.name)
        finally:
            self._ended = True
            self._refuse()
            self._guard(self._ending)
            self._guard(self._wakeup.close)
            if store is not None:
                self._guard(store.close)
            self._running.release()

    def _turn(self, store: StoreType) -> None:
        now = time.monotonic()
        if now >= self._hang_at:
            self._hang_at = now + LOOK_SECONDS
            self._guard(self._wakeup.open)
            if self._open and self._try("looking at", store.replaced):
                log.warning("the file of the %s is gone; it is made again", self.name)
                self._open = False
                self._try_at = 0.0
                self._guard(store.close)
        if self._to_look():
            self._look(store)
        # Only those that are here by now: under a flood what others write has to be read as well.
        waiting = len(self._calls)
        while waiting > 0:
            waiting -= self._serve(store)
        self._go_on(store)
        for chore in self._chores:
            if self._open and time.monotonic() >= chore.due:
                # Where there was something to do there may be more, but first come the others.
                again = self._try(chore.doing, lambda: chore.function(store))  # noqa: B023  # at once
                chore.due = time.monotonic() + (0.0 if again else chore.seconds)

    def _call(self, store: StoreType, function: Callable[[StoreType], Any], done: Done) -> None:
        if not self._open:
            self._guard(done, None, self._error)
            return
        try:
            result = function(store)
        except Exception as error:
            self._guard(done, None, error)
        else:
            self._guard(done, result, None)

    def _look(self, store: StoreType) -> None:
        """See that the store is open, and pass on what others have written."""
        if not self._open and time.monotonic() >= self._try_at:
            self._try("opening", lambda: self._open_store(store))
            self._try_at = time.monotonic() + LOOK_SECONDS
        elif self._open:
            self._try("reading", lambda: self._read(store) if store.changed() else None)

    def _open_store(self, store: StoreType) -> None:
        store.open()
        self._opened(store)
        self._open = True
        # What others have written while it was closed is no change to who has just come.
        self._read(store)

    def _try(self, doing: str, function: Callable[[], Any]) -> Any:
        """Do something that nobody waits for; what fails is told in the server's log."""
        try:
            result = function()
        except StoreError as error:
            self._tell(doing, error)
            self._error = error
            return None
        except Exception as error:
            log.exception("%s the %s failed", doing, self.name)
            self._error = error
            return None
        self._tell(doing, None)
        return result

    def _tell(self, doing: str, error: StoreError | None) -> None:
        """Log that the store fails, or works again; once, as it is tried again and again.

        Each on its own account: a full disk can still be read.
        """
        message = "" if error is None else str(error)
        if message != self._told.get(doing, ""):
            log.warning("%s", message or f"{doing} the {self.name} works again")
            self._told[doing] = message

    def _guard(self, function: Callable[..., object], *arguments: object) -> None:
        """Call what is not the thread's own; its errors must not end the thread."""
        try:
            function(*arguments)
        except Exception:
            log.exception("a callback of the thread of the %s failed", self.name)
