"""A store of runs on a Redis server."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import TypeVar

from sseflask.loop.callbacks import Done, Timeout, wait_for_callback
from sseflask.store.api import Durability, Extent, Health, KeyReused, StoreBusy, StoreError
from sseflask.store.append_queue import AppendQueue
from sseflask.store.redis.followed_runs import FollowedRuns
from sseflask.store.redis.link import Link
from sseflask.store.redis.run_scripts import (
    Found,
    RunScripts,
    UnknownProcess,
    ended_run,
    numbered_frames,
)
from sseflask.store.redis.server import PATIENCE, SHORT_PATIENCE, RedisServer
from sseflask.store.run_api import (
    Claim,
    Ending,
    Endings,
    Run,
    RunAppend,
    RunFrames,
    RunKey,
    RunLimits,
    RunListener,
    TooMany,
)

log = logging.getLogger("sseflask")

#: Seconds between two signs of life, and between two rounds of deleting runs whose time is over.
_BEAT_SECONDS, _TRIM_SECONDS = 1.0, 10.0

#: Number of runs that are looked at with each sign of life, of those that one call ends, and of
#: frames that are read at once.
_LOOK_AT, _LEAVE, _PAGE = 50, 50, 500

#: Milliseconds that one wait for news takes at most: shorter than a command may take.
_WAIT_MILLISECONDS = 2000

#: Number of entries after which the inbox is emptied, without waiting for the next sign of life.
_MANY_ENTRIES = 500

#: Seconds after which a run that this process is said to write, but does not know, is ended: by
#: then no answer to its claim can come.
_STRAY_SECONDS = PATIENCE + 5.0

#: Seconds for which the end of a process waits for what was begun before.
_LAST_SECONDS = 2.0

Result = TypeVar("Result")
Job = tuple[Callable[[Link], object], Done]


class RedisRunStore:
    """A `RunStore`, which says what the methods do. The key of a run is its id.

    Four greenlets of the main thread's loop (or threads) have a connection each. One stores what
    is appended. One reads the inbox, in which the server puts what becomes of runs of other
    processes. One gives signs of life: with a slow server these must not wait for anything else.
    One does in order what depends on the order, or what nobody waits for. Other calls are made by
    greenlets or threads of `RedisServer.call`.
    """

    def __init__(self, url: str, limits: RunLimits, endings: Endings) -> None:
        self._url = url
        self._limits = limits
        self._endings = endings
        self._queue = AppendQueue(self._store_appends, _call, self._stored, self._given_up)
        self._groups: queue.SimpleQueue[tuple[Sequence[RunAppend], Done] | None]
        self._groups = queue.SimpleQueue()
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._detached: set[RunKey] = set()
        self._withdrawn: list[Claim] = []
        self._to_end: dict[RunKey, Ending] = {}
        self._strays: dict[str, float] = {}
        self._in_use = self._beats_early = self._is_pending = self._closed = False
        self._reported = ""
        self._next_look = self._written = 0
        self._trim_at = 0.0
        self._made_room_at = 0
        self._ending, self._over = threading.Event(), threading.Event()

    # -- for any thread or greenlet, see `RunStore` ------------------------------------------------

    def follow(self, listener: RunListener) -> None:
        self._server = RedisServer.open(self._url)
        self._scripts = RunScripts(self._server, self._limits, self._endings.interrupted)
        self._runs = FollowedRuns(listener)
        self._reader = self._server.link()
        for work in (self._write, self._read, self._live, self._work):
            self._server.start(work)

    def claim(self, claim: Claim) -> tuple[Run, bool] | KeyReused | TooMany:
        return self._call(partial(self._claim, claim))

    def withdraw(self, claim: Claim) -> None:
        self._withdrawn.append(claim)
        self.submit(self._withdraw_pending, _ignore)

    def find(self, id: str, subject: str) -> Run | None:
        found = self._call(lambda link: self._scripts.find(link, id, subject))
        return None if found is None else found.run

    def frames(self, run: RunKey, after: int, limit: int) -> list[tuple[int, bytes]]:
        return self._call(lambda link: self._scripts.frames(link, run, after, limit))

    def attach(self, run: RunKey) -> Run | None:
        return self._call_in_order(partial(self._attach, run))

    def detach(self, run: RunKey) -> None:
        self._detached.add(run)
        self.submit(self._detach_pending, _ignore)

    def attached_elsewhere(
        self, runs: Collection[RunKey], done: Callable[[set[RunKey]], object]
    ) -> None:
        self.submit(partial(self._find_attached, runs, done), _ignore)

    def append(self, append: RunAppend) -> None:
        self._queue.add(append)

    def wait_for_room(self, run: RunKey) -> None:
        self._queue.wait_for_room(run)

    def end(self, run: RunKey, ending: Ending) -> Run | None:
        return self._call(partial(self._end, run, ending))

    def end_soon(self, run: RunKey, ending: Ending, *, unless_attached: bool = False) -> None:
        self.submit(partial(self._end, run, ending, unless_attached=unless_attached), _ignore)

    def leave(self) -> None:
        # Not what is begun from now on.
        self.submit(partial(self._leave, [*self._runs.own]), _ignore)

    def health(self) -> Health:
        return self._server.health()

    def durability(self) -> Durability:
        return self._server.durability()

    def extent(self) -> Extent:
        self._raise_if_closed()
        return self._server.call(self._scripts.extent, SHORT_PATIENCE)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._server.in_loop(self._jobs.put, None)
            self._over.wait(_LAST_SECONDS)
            self._server.in_loop(self._groups.put, None)
            self._server.in_loop(self._ending.set)
            self._server.in_loop(self._reader.end)
            self._server.close()

    def _call(self, function: Callable[[Link], Result]) -> Result:
        self._raise_if_closed()
        if self._detached:
            self._call_in_order(_nothing)  # what this process has left, it has left by then
        return self._server.call(function)

    def _call_in_order(self, function: Callable[[Link], Result]) -> Result:
        """Call a function after those that were submitted before."""
        self._raise_if_closed()
        try:
            result: Result = wait_for_callback(partial(self.submit, function), PATIENCE)
        except Timeout:
            raise StoreBusy(f"the run log did not answer within {PATIENCE:g} s") from None
        return result

    def submit(self, function: Callable[[Link], object], done: Done) -> None:
        """Call a function after those that were submitted before, with a link. Never blocks."""
        self._server.in_loop(self._jobs.put, (function, done))

    def _raise_if_closed(self) -> None:
        if self._closed:
            raise StoreError("the run log is closed")

    # -- what is appended --------------------------------------------------------------------------

    def _store_appends(self, appends: Sequence[RunAppend], done: Done) -> None:
        self._server.in_loop(self._groups.put, (appends, done))

    def _write(self) -> None:
        """Store groups of appends, one after another. The queue goes on when it is called back."""
        link = self._server.link()
        while (group := self._groups.get()) is not None:
            appends, done = group
            try:
                refused, ended = self._scripts.append(link, appends)
            except Exception as error:
                _guard(done, None, error)
                continue
            _guard(done, refused, None)
            for run in ended:
                self._runs.end(run, here=True)
            if refused:
                self._to_end.update((append.run, self._endings.interrupted) for append in refused)
                self.submit(self._end_pending, _ignore)
            if self._scripts.used > self._limits.max_bytes * 3 / 4:
                self._make_room_soon()
        link.close()

    def _stored(self, appends: Sequence[RunAppend], refused: Sequence[RunAppend]) -> None:
        refused_runs = {append.run for append in refused}
        self._runs.deliver(
            [
                RunFrames(append.run, append.first, append.frames)
                for append in appends
                if append.frames and append.run not in refused_runs
            ]
        )

    def _given_up(self, appends: Sequence[RunAppend], error: Exception) -> None:
        for append in appends:
            self._to_end[append.run] = self._endings.unavailable
            self._runs.lose(append.run, StoreError(str(error)))

    # -- what others write -------------------------------------------------------------------------

    def _read(self) -> None:
        """Pass on what comes into the inbox."""
        link, unread = self._reader, 0
        while not self._closed:
            try:
                entries = self._scripts.entries(link, _WAIT_MILLISECONDS)
                self._take(link, entries)
                unread += len(entries)
                if unread > _MANY_ENTRIES:
                    unread = 0
                    self._scripts.empty_inbox(link)
            except StoreError:
                # What was read and not passed on is missed by the next look at these runs.
                if not self._closed and self._server.wait_until_available(1.0):
                    time.sleep(0.1)
            except Exception:
                log.exception("reading the run log failed")
                time.sleep(1.0)
        link.close()

    def _take(self, link: Link, entries: Sequence[list[bytes]]) -> None:
        batch: list[RunFrames] = []
        for entry in entries:
            kind, run = entry[0], entry[1].decode()
            if kind == b"f":
                numbers, frames = zip(*numbered_frames(entry), strict=True)
                batch.append(RunFrames(run, numbers[0], list(frames)))
                continue
            self._deliver(link, batch)
            batch = []
            if kind == b"n":
                self._read_frames(link, run, int(entry[3]))
            elif kind == b"e":
                ended, by = ended_run(entry)
                self._settle(link, ended, by.startswith(self._scripts.token.encode()))
            elif kind == b"w":
                if self._beats_early:
                    self._beat()
            elif kind == b"o":
                for each in self._runs.followed():
                    self._look_at(link, each, self._scripts.find(link, each))
        self._deliver(link, batch)

    def _deliver(self, link: Link, batch: Sequence[RunFrames]) -> None:
        for run in self._runs.deliver(batch) if batch else ():
            self._look_at(link, run, self._scripts.find(link, run))

    def _read_frames(self, link: Link, run: RunKey, last: int) -> None:
        """Give the listener a run's frames up to a number, if it has not got them."""
        while self._runs.is_behind(run, last):
            given = self._runs.given(run) or 0
            frames = self._scripts.frames(link, run, given, min(_PAGE, last - given))
            if not frames:
                return  # it is gone, which the next look finds out
            self._runs.deliver([RunFrames(run, given + 1, [frame for _, frame in frames])])

    def _settle(self, link: Link, run: Run, here: bool) -> None:
        """Give the listener a run's end, after its last frames."""
        self._read_frames(link, run.key, run.last)
        self._runs.end(run, here)

    def _look_at(self, link: Link, run: RunKey, found: Found | None) -> None:
        """Give the listener what it lacks of a followed run, which was found as it is now."""
        if self._runs.given(run) is None:
            return
        if found is None:
            self._runs.lose(run, None)
        elif found.run.ended is not None:
            self._settle(link, found.run, found.here)
        elif not self._runs.is_own(run):
            self._read_frames(link, run, found.run.last)

    # -- calls -------------------------------------------------------------------------------------

    def _claim(self, claim: Claim, link: Link) -> tuple[Run, bool] | KeyReused | TooMany:
        try:
            result = self._scripts.claim(link, claim)
        except UnknownProcess:
            self._enter(link)
            try:
                result = self._scripts.claim(link, claim)
            except UnknownProcess:
                raise StoreError("the run log's other users took this process for dead") from None
        if isinstance(result, tuple) and not result[1]:
            self._runs.write(result[0].key)
        return result

    def _enter(self, link: Link) -> None:
        """Have the server know this process, which it needs from now on."""
        self._in_use = True
        self._tick(link)

    def _end(
        self,
        run: RunKey,
        ending: Ending,
        link: Link,
        *,
        unless_attached: bool = False,
        withdrawn: bool = False,
    ) -> Run | None:
        answer = self._scripts.end(
            link, run, ending, unless_attached=unless_attached, withdrawn=withdrawn
        )
        if answer is None:
            return None
        if answer.run.ended is not None:
            self._settle(link, answer.run, answer.here)
        return answer.run

    # -- in order ----------------------------------------------------------------------------------

    def _work(self) -> None:
        """Do jobs one after another."""
        link = self._server.link()
        while (job := self._jobs.get()) is not None:
            function, done = job
            try:
                result = function(link)
            except Exception as error:
                if not isinstance(error, StoreError):
                    log.exception("a call to the run log failed")
                _guard(done, None, error)
            else:
                _guard(done, result, None)
        link.close()
        self._over.set()

    def _attach(self, run: RunKey, link: Link) -> Run | None:
        self._detached.discard(run)
        is_new = self._runs.expect(run)
        try:
            found = self._attached(run, link)
        except BaseException:
            if is_new:
                self._runs.forget(run)
            raise
        if found is None or found.ended is not None:
            if is_new:
                self._runs.forget(run)
            elif found is not None:
                self._settle(link, found, here=False)
            return found
        if is_new:
            if self._runs.begin(run, found.last):
                self._look_at(link, run, self._scripts.find(link, run))
        elif not self._runs.is_own(run):
            self._read_frames(link, run, found.last)
        else:
            # What follows may be on its way back to this process.
            found = found._replace(last=min(found.last, self._runs.given(run) or 0))
        return found

    def _attached(self, run: RunKey, link: Link) -> Run | None:
        try:
            return self._scripts.attach(link, run)
        except UnknownProcess:
            self._enter(link)
        try:
            return self._scripts.attach(link, run)
        except UnknownProcess:
            raise StoreError("the run log's other users took this process for dead") from None

    def _detach_pending(self, link: Link) -> None:
        for run in list(self._detached):
            if not self._runs.is_own(run):
                self._runs.forget(run)
                self._scripts.detach(link, run)
            self._detached.discard(run)

    def _find_attached(
        self, runs: Collection[RunKey], done: Callable[[set[RunKey]], object], link: Link
    ) -> None:
        self._beats_early = True
        _guard(done, self._scripts.attached_elsewhere(link, runs))

    def _withdraw_pending(self, link: Link) -> None:
        while self._withdrawn:
            claim = self._withdrawn[0]
            self._end(claim.id, self._endings.interrupted, link, withdrawn=True)
            self._withdrawn.pop(0)

    def _end_pending(self, link: Link) -> None:
        """End the runs whose appends were refused or given up, unless they have ended."""
        for run, ending in list(self._to_end.items()):
            if self._end(run, ending, link) is None:
                self._runs.lose(run, None)
            del self._to_end[run]

    def _leave(self, own: Sequence[RunKey], link: Link) -> None:
        for at in range(0, len(own), _LEAVE):
            for run in self._scripts.leave(link, own[at : at + _LEAVE]):
                self._settle(link, run, here=True)

    # -- every second ------------------------------------------------------------------------------

    def _live(self) -> None:
        """Give signs of life, and have done every second what is to be done then."""
        link = self._server.link()
        more = False
        while not self._ending.wait(0.0 if more else _BEAT_SECONDS):
            try:
                more = self._tick(link)
            except Exception as error:
                more = False
                self._report(error)
            else:
                if not self._is_pending:
                    self._is_pending = True
                    self.submit(self._do_pending, self._pending_done)
            self._beat()
        link.close()

    def _pending_done(self, _result: object, error: Exception | None) -> None:
        self._is_pending = False
        self._report(error)

    def _report(self, error: Exception | None) -> None:
        """Log once that what is done every second fails, or works again."""
        if error is not None and not isinstance(error, StoreError):
            log.error("looking after the run log failed", exc_info=error)
        message = "" if error is None else str(error)
        # Of a server that is away `RedisServer` says enough.
        if message != self._reported and self._server.available and not self._closed:
            log.warning("%s", message or "the run log works again")
            self._reported = message

    def _beat(self) -> None:
        self._beats_early = False
        self._runs.beat()

    def _tick(self, link: Link) -> bool:
        """Say that this process is alive; end runs of dead ones; look at some runs.

        Returns whether there is more to end.
        """
        followed = self._runs.followed()
        if self._next_look >= len(followed):
            self._next_look = 0
        some = followed[self._next_look : self._next_look + _LOOK_AT]
        self._next_look += _LOOK_AT
        tick = self._scripts.tick(link, self._in_use, some)
        if tick.entered:
            self._scripts.seen = b"0"
            self.submit(self._attach_again, _ignore)
        for run, found in tick.found.items():
            self._look_at(link, run, found)
        if tick.ended:
            log.warning("another worker is gone or stands still; its runs are ended")
        for ended in tick.ended:
            self._settle(link, ended, here=True)
        self._written = tick.written
        return tick.more

    def _attach_again(self, link: Link) -> None:
        for run in self._runs.followed():
            if not self._runs.is_own(run):
                self._scripts.attach(link, run)
            self._look_at(link, run, self._scripts.find(link, run))

    def _do_pending(self, link: Link) -> None:
        self._detach_pending(link)
        self._withdraw_pending(link)
        self._end_pending(link)
        if self._written > len(self._runs.own):
            self._end_strays(link)
        else:
            self._strays.clear()
        if time.monotonic() >= self._trim_at:
            self._trim_at = time.monotonic() + _TRIM_SECONDS
            self._make_room(link)

    def _end_strays(self, link: Link) -> None:
        """End runs that this process is said to write but does not know.

        Their claims were given up, or their ends were lost with a server.
        """
        now, own = time.monotonic(), self._runs.own
        strays = self._scripts.written(link) - own
        self._strays = {run: self._strays.get(run, now) for run in strays}
        for run, since in list(self._strays.items()):
            if now > since + _STRAY_SECONDS:
                self._end(run, self._endings.interrupted, link)

    # -- space -------------------------------------------------------------------------------------

    def _make_room_soon(self) -> None:
        """Make room as soon as waiting jobs are done, if much was stored since that was done."""
        step = min(1 << 20, self._limits.max_bytes / 64)
        if abs(self._scripts.used - self._made_room_at) >= step:
            self._made_room_at = self._scripts.used
            self.submit(self._make_room, _ignore)

    def _make_room(self, link: Link) -> None:
        room = self._scripts.make_room(link)
        if room.largest is not None:
            log.warning("the run log is full of what is running: the largest run has to end")
            self._end(room.largest, self._endings.full, link)
        if room.deleted or room.largest is not None:
            self.submit(self._make_room, _ignore)


def _call(function: Callable[..., object], *arguments: object) -> None:
    function(*arguments)


def _guard(function: Callable[..., object], *arguments: object) -> None:
    """Call something whose errors must not end a greenlet or thread."""
    try:
        function(*arguments)
    except Exception:
        log.exception("a callback of the run log failed")


def _nothing(_link: Link) -> None:
    pass


def _ignore(_result: object, _error: Exception | None) -> None:
    """No caller waits: what has to be done is tried again every second."""
