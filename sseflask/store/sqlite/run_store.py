"""A store of runs in an SQLite file: one native thread for each process."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Sequence
from functools import partial

from sseflask.loop.callbacks import Done
from sseflask.store.api import KeyReused, StoreError
from sseflask.store.append_queue import AppendQueue
from sseflask.store.run_api import (
    Claim,
    Ending,
    Endings,
    PassedOn,
    Run,
    RunAppend,
    RunFrames,
    RunLimits,
    RunListener,
    TooMany,
)
from sseflask.store.sqlite.run_database import RunDatabase
from sseflask.store.sqlite.thread import PeriodicTask, StoreThread

log = logging.getLogger("sseflask")

#: Seconds between two signs of life.
_BEAT_SECONDS = 1.0

#: Number of frames that are read at once.
_PAGE = 500


class SqliteRunStore(StoreThread[RunDatabase]):
    """A `RunStore`; the protocol describes its methods. The key of a run is its row's number."""

    def __init__(
        self,
        path: str,
        limits: RunLimits,
        endings: Endings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(
            "run store", path, partial(RunDatabase, path, limits, endings.interrupted, clock)
        )
        self._endings = endings
        self._queue = AppendQueue(self._store_appends, self._notify, self._stored, self._given_up)
        # The last frame that was given of each followed run; None if this process writes the run.
        self._followed: dict[int, int | None] = {}
        self._detached: set[int] = set()
        self._withdrawn: list[Claim] = []
        self._to_end: dict[int, Ending] = {}
        self._others_attached = False
        self._beats_early = False
        self._token = ""
        self._inherits = False
        self._space = PeriodicTask("making room in", _BEAT_SECONDS, self._make_room)
        beat = PeriodicTask("ending the runs of dead workers", _BEAT_SECONDS, self._tick)
        self._tasks += [beat, self._space]

    # -- for any thread or greenlet, see `RunStore` ------------------------------------------------

    def follow(self, listener: RunListener, *, inherits: bool = True) -> None:
        self._listener = listener
        self._inherits = inherits
        self.start()

    def claim(self, claim: Claim) -> tuple[Run, bool] | KeyReused | TooMany:
        return self.call(self._claim, claim)

    def withdraw(self, claim: Claim) -> None:
        self._withdrawn.append(claim)
        self.try_soon(self._withdraw)

    def find(self, id: str, subject: str) -> Run | None:
        return self.call(RunDatabase.find, id, subject)

    def frames(self, run: int, after: int, limit: int) -> list[tuple[int, bytes]]:
        return self.call(RunDatabase.frames, run, after, limit)

    def attach(self, run: int) -> Run | None:
        return self.call(self._attach, run)

    def detach(self, run: int) -> None:
        self.try_soon(self._detach, run)

    def attached_elsewhere(self, runs: Collection[int], done: Callable[[set[int]], object]) -> None:
        self.try_soon(self._find_attached, runs, done)

    def append(self, append: RunAppend) -> None:
        self._queue.add(append)

    def wait_for_room(self, run: int) -> None:
        self._queue.wait_for_room(run)

    def end(self, run: int, ending: Ending) -> Run | None:
        return self.call(self._end, run, ending)

    def end_soon(self, run: int, ending: Ending, *, unless_attached: bool = False) -> None:
        self.try_soon(self._end, run, ending, unless_attached)

    def inherit_no_more(self) -> None:
        self._inherits = False

    def leave(self) -> None:
        self.inherit_no_more()
        self.try_soon(self._leave)

    # -- in the event loop, called by the queue ----------------------------------------------------

    def _stored(self, batch: Sequence[RunFrames]) -> None:
        self._listener.frames(batch)

    def _given_up(self, appends: Sequence[RunAppend], error: Exception) -> None:
        for append in appends:
            self._to_end[append.run] = self._endings.unavailable
            self._listener.lost(append.run, StoreError(str(error)))

    # -- in the thread: calls ----------------------------------------------------------------------

    def _claim(self, database: RunDatabase, claim: Claim) -> tuple[Run, bool] | KeyReused | TooMany:
        result = database.claim(claim)
        self._make_room_if_due(database)
        if isinstance(result, tuple) and not result[1]:
            self._followed[result[0].key] = None
        return result

    def _withdraw(self, database: RunDatabase) -> None:
        while self._withdrawn:
            claim = self._withdrawn[0]
            run = database.find(claim.id, claim.subject)
            if run is not None:
                self._end(database, run.key, self._endings.interrupted)
            self._withdrawn.pop(0)

    def _attach(self, database: RunDatabase, number: int) -> Run | None:
        run = database.leases.attach(number)
        self._detached.discard(number)
        if run is not None and run.ended is None:
            if number not in self._followed:
                self._followed[number] = run.last
                self._wakeup.wake_others()
            else:
                self._read_frames(database, run)
        return run

    def _detach(self, database: RunDatabase, number: int) -> None:
        if self._followed.get(number) is not None:
            del self._followed[number]
        self._detached.add(number)
        self._detach_pending(database)

    def _detach_pending(self, database: RunDatabase) -> None:
        while self._detached:
            number = self._detached.pop()
            try:
                database.leases.detach(number)
            except StoreError:
                self._detached.add(number)
                raise
            self._wakeup.wake_others()

    def _find_attached(
        self, database: RunDatabase, numbers: Collection[int], done: Callable[[set[int]], object]
    ) -> None:
        self._notify(done, database.leases.attached_elsewhere(numbers))
        self._beats_early = True

    def _store_appends(self, appends: Sequence[RunAppend], done: Done) -> None:
        """Hand a group of appends over to the thread, for the queue. Any thread.

        The thread calls `_append`, then ``done``; the queue then calls `_stored` in the loop.
        """

        def stored(
            result: tuple[list[RunAppend], list[Run]] | None, error: Exception | None
        ) -> None:
            refused, ended = result or ([], [])
            done(refused, error)
            for run in ended:
                self._report_end(run, here=True)

        self.call_soon(stored, self._append, appends)

    def _append(
        self, database: RunDatabase, appends: Sequence[RunAppend]
    ) -> tuple[list[RunAppend], list[Run]]:
        refused, ended = database.append(appends)
        self._make_room_if_due(database)
        if self._others_attached:
            self._wakeup.wake_others()
        if refused:
            # These runs have ended, or are others'. This process does not know that yet.
            self._to_end.update((append.run, self._endings.interrupted) for append in refused)
            self._guard(self._end_pending, database)
        return refused, ended

    def _end_pending(self, database: RunDatabase) -> None:
        for number, ending in list(self._to_end.items()):
            followed = number in self._followed
            run = self._end(database, number, ending, unless_passed_on=True)
            if run is None:
                self._notify(self._listener.lost, number, None)
            elif run.ended is None:
                self._lose(number)
            elif not followed:
                self._notify(self._listener.ended, run, False)
            del self._to_end[number]

    def _end(
        self,
        database: RunDatabase,
        number: int,
        ending: Ending,
        unless_attached: bool = False,
        unless_passed_on: bool = False,
    ) -> Run | None:
        run, here = database.end(
            number, ending, unless_attached=unless_attached, unless_passed_on=unless_passed_on
        )
        if run is not None and run.ended is not None:
            self._wakeup.wake_others()
            self._read_frames(database, run)
            self._report_end(run, here=here)
        return run

    def _leave(self, database: RunDatabase) -> None:
        for number in database.leases.pass_on():
            self._lose(number)
        for run in database.leases.leave():
            self._report_end(run, here=True)
        self._wakeup.wake_others()

    def _report_end(self, run: Run, *, here: bool) -> None:
        followed = run.key in self._followed
        self._followed.pop(run.key, None)
        if followed or here:
            self._notify(self._listener.ended, run, here)

    def _lose(self, number: int) -> None:
        """Another process goes on with a run that this one has written, or will."""
        if self._followed.get(number, 0) is None:
            del self._followed[number]
            error = PassedOn("another process goes on with this run, or will")
            self._notify(self._listener.lost, number, error)

    # -- in the thread: what others write, and what is done every second ---------------------------

    def _read(self, database: RunDatabase) -> None:
        # Not asked for each append: a process that attaches to a run wakes this one, which wakes it
        # for what was stored in between.
        before, self._others_attached = self._others_attached, database.leases.others_are_attached()
        if self._others_attached and not before:
            self._wakeup.wake_others()
        numbers: list[int] = []
        own: list[int] = []
        for number, given in self._followed.items():
            (own if given is None else numbers).append(number)
        found = {run.key: run for run in database.follow(numbers, own)}
        for number in list(self._followed):
            run = found.get(number)
            if run is None:
                del self._followed[number]
                self._notify(self._listener.lost, number, None)
                continue
            self._read_frames(database, run)
            if run.ended is not None:
                self._report_end(run, here=False)
        if self._inherits and database.leases.others_have_left():
            self._inherit(database)
        if self._beats_early:
            self._beat()

    def _inherit(self, database: RunDatabase) -> bool:
        """Go on with runs of others that nobody writes. Returns whether there were some."""
        own = [number for number, given in self._followed.items() if given is None]
        inherited, ended = database.leases.inherit(own)
        for run, successor in inherited:
            log.info("run %s: another worker is gone, and this one goes on with it", run.id)
            self._read_frames(database, run)
            self._followed[run.key] = None
            self._notify(self._listener.inherited, run, successor)
        self._report_ends(database, ended)
        return bool(inherited or ended)

    def _report_ends(self, database: RunDatabase, ended: Sequence[Run]) -> None:
        """Pass on which runs this process has ended in place of others."""
        if ended:
            self._wakeup.wake_others()
        for run in ended:
            self._read_frames(database, run)
            self._report_end(run, here=True)

    def _read_frames(self, database: RunDatabase, run: Run) -> None:
        given = self._followed.get(run.key)
        while given is not None and given < run.last:
            frames = database.frames(run.key, given, min(_PAGE, run.last - given))
            if not frames:
                return  # deleted in between, which the next look finds out
            batch = [RunFrames(run.key, given + 1, [frame for _, frame in frames])]
            self._notify(self._listener.frames, batch)
            given = self._followed[run.key] = frames[-1][0]

    def _beat(self) -> None:
        self._beats_early = False
        self._notify(self._listener.beat)

    def _tick(self, database: RunDatabase) -> bool:
        ended = database.leases.tick(bool(self._followed))
        self._report_ends(database, ended)
        if database.leases.token != self._token:
            self._enter_again(database)
        again = self._inherits and self._inherit(database)
        self._beat()
        self._detach_pending(database)
        self._withdraw(database)
        self._end_pending(database)
        return again or bool(ended)

    def _enter_again(self, database: RunDatabase) -> None:
        """This process was taken for dead, and is attached to no run; but its viewers are there."""
        own = [number for number, given in self._followed.items() if given is None]
        for number in database.leases.taken_by_others(own):
            self._lose(number)
        for number, given in list(self._followed.items()):
            if given is not None:
                database.leases.attach(number)
        self._token = database.leases.token

    def _make_room_if_due(self, database: RunDatabase) -> None:
        """Make room as soon as waiting calls have been served, not in a second."""
        if database.space.is_due:
            self._space.due = 0.0

    def _make_room(self, database: RunDatabase) -> bool:
        again = database.space.make()
        if database.space.overfull and (number := database.space.largest()) is not None:
            log.warning("the run store is full of what is running: the largest run has to end")
            self._end(database, number, self._endings.full)
            again = True
        return again
