"""One native thread for each process that owns the log, so that nobody else waits for a disk.

Under gevent the event loop never touches the store: greenlets hand calls over and go on when the
result is there.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from sseflask.channels.log import Append, Appended, Entry, KeyReused, Log, LogError
from sseflask.channels.wake import Bell, original

__all__ = ["LogThread"]

log = logging.getLogger("sseflask")

#: Events written in one transaction at most, and read from the tail at once.
_GROUP, _PAGE = 500, 1000

#: Seconds after which the thread looks for what no bell has told it of, and tries again to open a
#: log that can't be opened.
_LOOK_SECONDS = 0.25

#: Seconds between two rounds of forgetting.
_TRIM_SECONDS = 10.0

Done = Callable[[Any, Exception | None], None]
"""Gets a call's result or what it raised, in the log's thread; must not block."""


class LogThread:
    """Runs everything that concerns the log, in order, and passes the log's tail on.

    To be made after fork. The callbacks are called in the thread and must not block; what they
    raise is logged.

    Args:
        make: makes the log, not yet open; called once, in the thread.
        deliver: gets the tail's entries, each once and in order.
        restarted: called when the log is another one than before, also at the start: with its
            epoch and its highest number, before anything above that is delivered.
        skipped: called when events were forgotten before they could be read, as after a stop of
            the whole process: with the last number before them and their last number at most, and
            before what follows is delivered.
        bell: rings when another process has written; the thread closes it.
    """

    def __init__(
        self,
        make: Callable[[], Log],
        deliver: Callable[[Sequence[Entry]], None],
        restarted: Callable[[str, int], None],
        skipped: Callable[[int, int], None],
        bell: Bell,
    ) -> None:
        self._make = make
        self._deliver = deliver
        self._restarted = restarted
        self._skipped = skipped
        self._bell = bell
        self._calls: deque[tuple[Callable[[Log], Any] | Append, Done]] = deque()
        self._epoch = ""
        self._tail = 0
        self._open = False
        self._try_at = self._trim_at = self._hang_at = 0.0
        self._error: Exception = LogError("the channel log is not open yet")
        self._told: dict[str, str] = {}
        self._closing = False
        self._ended = False
        self._running = original("_thread", "allocate_lock")()
        self._running.acquire()
        # Not threading.Thread: under gevent that starts a greenlet, whoever asks for the original.
        original("_thread", "start_new_thread")(self._run, ())

    @property
    def epoch(self) -> str:
        """The epoch of what is delivered. Exact in the thread, as in what gets a result."""
        return self._epoch

    @property
    def tail(self) -> int:
        """The highest number that has been delivered. Exact in the thread, as in a `call`."""
        return self._tail

    def call(self, function: Callable[[Log], Any], done: Done) -> None:
        """Have a function called with the log, after what was handed over before. Never blocks.

        Whatever it raises reaches ``done``; `LogError` where the log is not open or closed.
        """
        self._hand_over(function, done)

    def append(self, append: Append, done: Done) -> None:
        """Have events stored; ``done`` gets `Appended` or `KeyReused`. Never blocks.

        What waits at the same time is written as one group. Events are delivered here before
        ``done`` is called.
        """
        self._hand_over(append, done)

    def let_go(self, seconds: float) -> Callable[[], object] | None:
        """Have the log closed while the process is copied, as by ``os.fork``.

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

        def wait(store: Log) -> None:
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
        let_go: bool = closed.acquire(timeout=seconds)
        if not let_go:
            go_on.release()  # when it comes to it after all
        release: Callable[[], object] = go_on.release
        return release if let_go else None

    def close(self) -> None:
        """End the thread after what was handed over before, and close the log. Never blocks."""
        self._closing = True
        self._bell.ring_here()

    def join(self, seconds: float) -> bool:
        """Wait until the thread has ended, and whether it has. Blocks the native thread."""
        ended: bool = self._running.acquire(timeout=seconds)
        if ended:
            self._running.release()
        return ended

    def _hand_over(self, call: Callable[[Log], Any] | Append, done: Done) -> None:
        self._calls.append((call, done))
        if self._ended:
            self._refuse()
        else:
            self._bell.ring_here()

    def _refuse(self) -> None:
        """Answer what came too late; each call once, whichever threads do it."""
        while self._calls:
            try:
                _, done = self._calls.popleft()
            except IndexError:
                return
            self._guard(done, None, LogError("the channel log is closed"))

    # -- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        store: Log | None = None
        try:
            store = self._make()
            while not self._closing:
                now = time.monotonic()
                due = min(now + _LOOK_SECONDS, self._trim_at) if self._open else self._try_at
                self._bell.wait(0.0 if self._calls else due - now)
                self._turn(store)
            while self._calls:
                self._turn(store)
        except Exception:
            log.exception("the thread of the channel log has ended")
        finally:
            self._ended = True
            self._refuse()
            self._guard(self._bell.close)
            if store is not None:
                self._guard(store.close)
            self._running.release()

    def _turn(self, store: Log) -> None:
        now = time.monotonic()
        if now >= self._hang_at:
            self._hang_at = now + _LOOK_SECONDS
            self._guard(self._bell.open)
            if self._open and self._try("looking at", store.replaced):
                log.warning("the file of the channel log is gone; it is made again")
                self._open = False
                self._try_at = 0.0
                self._guard(store.close)
        self._look(store)
        # Only those that are here by now: under a flood the tail has to be looked at as well.
        waiting = len(self._calls)
        while waiting > 0:
            waiting -= self._serve(store)
        if self._open and time.monotonic() >= self._trim_at:
            # Where there was something to forget there may be more, but first come the others.
            trimmed = self._try("trimming", store.trim)
            self._trim_at = time.monotonic() + (0.0 if trimmed else _TRIM_SECONDS)

    def _serve(self, store: Log) -> int:
        """Take the next calls, and say how many: one, or some appends that make a group."""
        call, done = self._calls.popleft()
        if not isinstance(call, Append):
            self._call(store, call, done)
            return 1
        group, events = [(call, done)], len(call.frames)
        while self._calls and isinstance(following := self._calls[0][0], Append):
            events += len(following.frames)
            if events > _GROUP:
                break
            group.append((following, self._calls.popleft()[1]))
        self._write(store, group)
        return len(group)

    def _call(self, store: Log, function: Callable[[Log], Any], done: Done) -> None:
        if not self._open:
            self._guard(done, None, self._error)
            return
        try:
            result = function(store)
        except Exception as error:
            self._guard(done, None, error)
        else:
            self._guard(done, result, None)

    def _write(self, store: Log, group: Sequence[tuple[Append, Done]]) -> None:
        results: Sequence[Appended | KeyReused | None] = [None] * len(group)
        failed: Exception | None = None
        if not self._open:
            failed = self._error
        else:
            try:
                results = store.append([append for append, _ in group])
            except LogError as error:
                self._tell("writing", error)
                failed = error
            except Exception as error:
                if len(group) > 1:  # one of them is at fault, not the store
                    for one in group:
                        self._write(store, [one])
                    return
                failed = error
            else:
                self._tell("writing", None)
                self._pass_on(store, group, results)
        for (_, done), result in zip(group, results, strict=True):
            self._guard(done, result, failed)

    def _pass_on(
        self,
        store: Log,
        group: Sequence[tuple[Append, Done]],
        results: Sequence[Appended | KeyReused | None],
    ) -> None:
        fresh = [
            (result, append)
            for result, (append, _) in zip(results, group, strict=True)
            if isinstance(result, Appended) and not result.repeated
        ]
        if not fresh:
            return
        self._guard(self._bell.ring_others)
        if fresh[0][0].first == self._tail + 1:
            self._tail = fresh[-1][0].last
            entries = [
                Entry(number, append.channel, frame)
                for result, append in fresh
                for number, frame in enumerate(append.frames, result.first)
            ]
            self._guard(self._deliver, entries)
        else:
            self._try("reading", lambda: self._read_tail(store))

    def _look(self, store: Log) -> None:
        """See that the log is open, and pass on what others have written."""
        if not self._open and time.monotonic() >= self._try_at:
            self._try("opening", lambda: self._open_log(store))
            self._try_at = time.monotonic() + _LOOK_SECONDS
        elif self._open:
            self._try("reading", lambda: self._read_tail(store) if store.changed() else None)

    def _open_log(self, store: Log) -> None:
        store.open()
        newest = store.newest()
        if store.epoch == self._epoch and newest < self._tail:
            # An older copy was put back: what it counts on from here has been seen before.
            log.warning("the channel log has gone back; it gets a new epoch")
            store.renew()
        if store.epoch != self._epoch:
            self._tail = newest
            self._epoch = store.epoch
            self._guard(self._restarted, self._epoch, self._tail)
        self._open = True
        # What others have written while it was closed is no change to who has just come.
        self._read_tail(store)

    def _read_tail(self, store: Log) -> None:
        newest = store.newest()
        while self._tail < newest:
            before = self._tail
            page = store.since(before, _PAGE)
            # Numbers have no holes: what a page lacks is forgotten. Where it is the last one, so
            # is what it lacks up to the number that was the newest before it was read.
            last = page[-1].number if page else newest
            if page.complete:
                last = max(last, newest)
            self._tail = last
            if last - before > len(page):
                self._guard(self._skipped, before, last)
            if page:
                self._guard(self._deliver, page)

    def _try(self, doing: str, function: Callable[[], Any]) -> Any:
        """Do something that nobody waits for; what fails is told in the server's log."""
        try:
            result = function()
        except LogError as error:
            self._tell(doing, error)
            self._error = error
            return None
        except Exception as error:
            log.exception("%s the channel log failed", doing)
            self._error = error
            return None
        self._tell(doing, None)
        return result

    def _tell(self, doing: str, error: LogError | None) -> None:
        """Log that the store fails, or works again; once, as it is tried again and again.

        Each on its own account: a full disk can still be read.
        """
        message = "" if error is None else str(error)
        if message != self._told.get(doing, ""):
            log.warning("%s", message or f"{doing} the channel log works again")
            self._told[doing] = message

    def _guard(self, function: Callable[..., object], *arguments: object) -> None:
        """Call what is not the thread's own; its errors must not end the thread."""
        try:
            function(*arguments)
        except Exception:
            log.exception("a callback of the channel log's thread failed")
