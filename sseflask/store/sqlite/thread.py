"""The native thread that owns a database of this process, so that nothing else waits for a disk.

Under gevent the event loop never touches the database: greenlets hand calls over, and go on when
the result is there. See `sseflask.loop` for which code runs where.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from sseflask.defaults import MEMORY
from sseflask.loop.callbacks import Done, EventLoop, Timeout, call_guarded, wait_for_callback
from sseflask.loop.native import original
from sseflask.store.api import Durability, Extent, Health, Problem, StoreBusy, StoreError
from sseflask.store.sqlite import fork
from sseflask.store.sqlite.durability import durability_of
from sseflask.store.sqlite.file import SqliteFile
from sseflask.store.sqlite.wakeup import WakeupSocket
from sseflask.store.sqlite.wal_copying import QUIET, WalCopying

log = logging.getLogger("sseflask")

#: Seconds between two looks for what other processes have written without waking this one, and
#: between two attempts to open a database that can't be opened. A look waits for as long, at most,
#: until there are no calls.
LOOK_SECONDS = 0.25

#: Seconds between two rounds of trimming.
TRIM_SECONDS = 10.0

#: Seconds to wait for the thread: longer than SQLite waits for another process.
PATIENCE = 20.0

#: Seconds to wait for an answer that the caller can do without.
SHORT_PATIENCE = 0.5

#: Seconds for which the end of a process waits for what the thread does.
_LAST_SECONDS = 2.0

DatabaseType = TypeVar("DatabaseType", bound=SqliteFile)
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


@dataclass
class PeriodicTask(Generic[DatabaseType]):
    """Something that the thread does again and again."""

    doing: str  # for the server's log
    seconds: float
    # If it returns something true, it is called again as soon as waiting calls have been served.
    function: Callable[[DatabaseType], object]
    due: float = 0.0


@dataclass(frozen=True, slots=True)
class DatabaseCall:
    """A function that the thread calls with the database, and with arguments after it."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    named: dict[str, Any]

    def __call__(self, database: SqliteFile) -> Any:
        return self.function(database, *self.arguments, **self.named)


class StoreThread(Generic[DatabaseType]):
    """Runs all calls to a database, in order, and looks for what other processes write.

    To be made after a fork, under gevent in the main thread's event loop. Started with `start`.
    Methods up to `_refuse` are for any thread or greenlet. The others run in the thread,
    where ``make`` is called once to make the database, not yet open.
    """

    def __init__(self, name: str, path: str, make: Callable[[], DatabaseType]) -> None:
        self.name = name
        self._path = path
        self.process = os.getpid()
        self._loop = EventLoop.current()
        #: Calls a function in the event loop, see `EventLoop.call_soon_threadsafe`.
        self._notify = self._loop.call_soon_threadsafe
        self._make = make
        self._wakeup = WakeupSocket(None if path == MEMORY else path)
        self._calls: deque[tuple[Any, Done]] = deque()
        self._open = False
        self._try_at = self._check_at = 0.0
        self._asked_to_look = False
        self._look_at = self._quiet_at = 0.0
        self._copying = WalCopying()
        self._tasks: list[PeriodicTask[DatabaseType]] = [
            PeriodicTask("trimming", TRIM_SECONDS, _trim)
        ]
        self._error: Exception = StoreError(f"the {name} is not open yet")
        self._reported: dict[str, str] = {}
        self._closing = False
        self._ended = False
        self._database: DatabaseType | None = None
        self._turning, self._running = (original("_thread", "allocate_lock")() for _ in range(2))
        self._running.acquire()

    def start(self) -> None:
        fork.there.add(self)
        # Not threading.Thread: under gevent even the original one starts a greenlet.
        original("_thread", "start_new_thread")(self._run, ())

    def submit(self, call: Any, done: Done) -> None:
        """Hand over a call; it is done after those that were handed over before. Never blocks.

        ``call`` is a function of the database, or anything else that the store's `_serve` takes.
        ``done`` is called in the thread; with a `StoreError` if the database is not open.
        """
        self._calls.append((call, done))
        if self._ended:
            self._refuse()
        else:
            self._wakeup.wake()

    def call(
        self,
        function: Callable[Concatenate[DatabaseType, Arguments], Result],
        *arguments: Arguments.args,
        **named: Arguments.kwargs,
    ) -> Result:
        """Call a function with the database, in the thread, and return its result.

        Blocks the calling greenlet or thread only, for `PATIENCE` seconds at most: `StoreBusy` is
        raised then, though the call may still be done.
        """
        return self.call_within(PATIENCE, function, *arguments, **named)

    def call_within(
        self,
        seconds: float,
        function: Callable[Concatenate[DatabaseType, Arguments], Result],
        *arguments: Arguments.args,
        **named: Arguments.kwargs,
    ) -> Result:
        """`call`, with other seconds."""
        result: Result = self._wait_for(DatabaseCall(function, arguments, named), seconds)
        return result

    def call_soon(
        self,
        done: Done,
        function: Callable[Concatenate[DatabaseType, Arguments], object],
        *arguments: Arguments.args,
        **named: Arguments.kwargs,
    ) -> None:
        """Hand over a call of a function with the database. Never blocks; see `submit`."""
        self.submit(DatabaseCall(function, arguments, named), done)

    def try_soon(
        self,
        function: Callable[Concatenate[DatabaseType, Arguments], object],
        *arguments: Arguments.args,
        **named: Arguments.kwargs,
    ) -> None:
        """`call_soon` if nobody waits, and a failure means that it will be tried again."""
        self.call_soon(self._log_unexpected, function, *arguments, **named)

    def _log_unexpected(self, _result: object, error: Exception | None) -> None:
        if error is not None and not isinstance(error, StoreError):
            log.error("a call to the %s failed", self.name, exc_info=error)

    def _wait_for(self, call: Any, patience: float = PATIENCE) -> Any:
        return self._wait(partial(self.submit, call), patience)

    def _wait(self, start: Callable[[Done], None], patience: float) -> Any:
        try:
            return wait_for_callback(start, patience)
        except Timeout:
            raise StoreBusy(f"the {self.name} did not answer within {patience} s") from None

    def health(self) -> Health:
        try:
            self.call_within(SHORT_PATIENCE, _do_nothing)
        except StoreBusy:
            return "busy"
        except StoreError:
            return "unavailable"
        return "available"

    def problem(self) -> Problem | None:
        return None  # the log says it, with the path

    def warning(self) -> str:
        return ""

    def durability(self) -> Durability:
        return durability_of(self._path)

    def extent(self) -> Extent:
        return self.call_within(SHORT_PATIENCE, _extent)

    def pause(self, seconds: float) -> bool:
        """See `Pausable`."""
        paused: bool = self._turning.acquire(timeout=seconds)
        if paused:
            self._open = False
            self._try_at = 0.0
            if self._database is not None:
                self._guard(self._database.close)
        return paused

    def resume(self) -> None:
        self._turning.release()
        self._wakeup.wake()

    def look_soon(self) -> None:
        """See soon what other processes have written. Any thread; never blocks."""
        self._asked_to_look = True
        self._wakeup.wake()

    def close(self) -> None:
        """Close the database and end the thread, after what was handed over before.

        Blocks for 2 seconds at most; what is left is done meanwhile. Harmless to repeat.
        """
        fork.there.discard(self)
        self._closing = True
        self._wakeup.wake()
        self.join(_LAST_SECONDS)

    def join(self, seconds: float) -> bool:
        """Wait for at most ``seconds`` until the thread has ended. Returns whether it has.

        Blocks the native thread.
        """
        ended: bool = self._running.acquire(timeout=seconds)
        if ended:
            self._running.release()
        return ended

    def _refuse(self) -> None:
        """Answer calls that came too late; each once, even if several threads are here."""
        while self._calls:
            try:
                _, done = self._calls.popleft()
            except IndexError:
                return
            self._guard(done, None, StoreError(f"the {self.name} is closed"))

    # -- what a kind of store adds, in the thread --------------------------------------------------

    def _opened(self, database: DatabaseType) -> None:
        """The database has just been opened: see what has changed. May raise `StoreError`."""

    def _read(self, database: DatabaseType) -> None:
        """Other processes may have written: pass that on. May raise `StoreError`."""

    def _take_messages(self) -> None:
        """Other processes have sent something; see `WakeupSocket.messages`."""
        self._wakeup.messages()
        self._asked_to_look = True

    def _serve(self, database: DatabaseType) -> int:
        """Take the next calls, at least one. Returns how many."""
        function, done = self._calls.popleft()
        if not self._open:
            self._guard(done, None, self._error)
            return 1
        try:
            result = function(database)
        except Exception as error:
            self._guard(done, None, error)
        else:
            self._guard(done, result, None)
        return 1

    def _step_due(self) -> float | None:
        """When to call `_step`, as a time of `time.monotonic`; ``None`` if there is no need."""
        return None

    def _step(self, database: DatabaseType) -> None:
        """Do a bounded part of work that takes long. Called at each turn, after the calls."""

    def _ending(self) -> None:
        """Answer what is still under way: the thread ends."""

    # -- the thread --------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._database = database = self._make()
            while not self._closing:
                now = time.monotonic()
                due = self._try_at
                if self._open:
                    look_at = max(self._look_at, self._quiet_at)
                    due = min(look_at, self._copying.due, *(task.due for task in self._tasks))
                step_due = self._step_due()
                if step_due is not None:
                    due = min(due, step_due)
                if self._wakeup.wait(0.0 if self._calls else due - now):
                    self._take_messages()
                with self._turning:
                    self._turn(database)
            while self._calls:
                self._turn(database)
        except Exception:
            log.exception("the thread of the %s has ended", self.name)
        finally:
            self._ended = True
            self._refuse()
            self._guard(self._ending)
            self._guard(self._wakeup.close)
            if self._database is not None:
                self._guard(self._database.close)
            self._running.release()

    def _turn(self, database: DatabaseType) -> None:
        now = time.monotonic()
        # What nobody waits for must not delay a call, nor what it leads to elsewhere in this
        # process and in others.
        quiet = not self._calls and now >= self._quiet_at
        if quiet or not self._open or self._asked_to_look or now >= self._look_at + LOOK_SECONDS:
            self._look_around(database, now)
        # Only those that are here by now: under a flood the other processes' events come as well.
        waiting = served = len(self._calls)
        while waiting > 0:
            waiting -= self._serve(database)
        self._step(database)
        for task in self._tasks:
            if self._open and time.monotonic() >= task.due:
                # If there was something to do there may be more, but first come the calls.
                again = self._try(task.doing, task.function, database)
                task.due = time.monotonic() + (0.0 if again else task.seconds)
        if served:
            self._quiet_at = time.monotonic() + QUIET
        if self._open:
            self._guard(self._copying.look, database, served > 0)

    def _look_around(self, database: DatabaseType, now: float) -> None:
        if now >= self._check_at:
            self._check_at = now + LOOK_SECONDS
            self._guard(self._wakeup.open)
            if self._open and self._try("looking at", database.replaced):
                log.warning("the file of the %s is gone; it is made again", self.name)
                self._open = False
                self._try_at = 0.0
                self._guard(database.close)
        if self._to_look(now):
            self._look(database)

    def _to_look(self, now: float) -> bool:
        """Whether others may have written: what this process writes itself is no news."""
        asked, self._asked_to_look = self._asked_to_look, False
        if self._open and not asked and now < self._look_at:
            return False
        self._look_at = now + LOOK_SECONDS
        return True

    def _look(self, database: DatabaseType) -> None:
        """Open the database if it is not open; else see what other processes have written."""
        if not self._open and time.monotonic() >= self._try_at:
            self._try("opening", self._open_database, database)
            self._try_at = time.monotonic() + LOOK_SECONDS
        elif self._open:
            self._try("reading", self._read_if_changed, database)

    def _read_if_changed(self, database: DatabaseType) -> None:
        if database.changed():
            self._read(database)

    def _open_database(self, database: DatabaseType) -> None:
        database.open()
        self._opened(database)
        self._open = True
        # What other processes wrote while it was closed does not count as a change.
        self._read(database)

    def _try(self, doing: str, function: Callable[..., Any], *arguments: object) -> Any:
        """Call something of which no caller waits for the result; errors go to the server's log."""
        try:
            result = function(*arguments)
        except StoreError as error:
            self._report(doing, error)
            self._error = error
            return None
        except Exception as error:
            log.exception("%s the %s failed", doing, self.name)
            self._error = error
            return None
        self._report(doing, None)
        return result

    def _report(self, doing: str, error: StoreError | None) -> None:
        """Log once that an operation fails, or works again: a full disk can still be read."""
        message = "" if error is None else str(error)
        if message != self._reported.get(doing, ""):
            log.warning("%s", message or f"{doing} the {self.name} works again")
            self._reported[doing] = message

    def _guard(self, function: Callable[..., object], *arguments: object) -> None:
        """Call something whose errors must not end the thread."""
        call_guarded(f"a callback of the thread of the {self.name}", function, *arguments)


def _trim(database: SqliteFile) -> int:
    return database.trim()


def _extent(database: SqliteFile) -> Extent:
    return database.extent()


def _do_nothing(_database: SqliteFile) -> None:
    """The answer shows that the thread answers."""
