"""The thread of the run log: what this process writes, and what it follows of other processes'."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from sseflask.completions.failures import interrupted
from sseflask.completions.outcome import Outcome
from sseflask.runs.limits import log_full
from sseflask.store.api import KeyReused, StoreError
from sseflask.store.run_api import Append, Claim, Run, TooMany
from sseflask.store.sqlite.runs import RunLog
from sseflask.store.sqlite.thread import LOOK_SECONDS, Done, PeriodicTask, StoreThread
from sseflask.store.sqlite.wakeup import WakeupSocket

__all__ = ["RunThread"]

log = logging.getLogger("sseflask")

#: Seconds between two signs of life.
_BEAT_SECONDS = 1.0

#: Frames read at once.
_PAGE = 500


class RunThread(StoreThread[RunLog]):
    """A `StoreThread` that is started at once, and calls back with what has become of runs.

    Args:
        make: makes the log, not yet open; called once, in the thread.
        wakeup: rings when another process has written; the thread closes it.
        frames: gets the frames of a run that another process writes: its number, the number of
            the first, and the frames; each once and in order.
        ended: gets a run that has ended, whoever ended it, after all its frames; once.
        lost: gets the number of a run that is no longer in the log.
        beat: called every second.

    Attributes:
        impatient: call ``beat`` whenever another process has written, too.
    """

    def __init__(
        self,
        make: Callable[[], RunLog],
        wakeup: WakeupSocket,
        frames: Callable[[int, int, list[bytes]], None],
        ended: Callable[[Run], None],
        lost: Callable[[int], None],
        beat: Callable[[], None],
    ) -> None:
        super().__init__("run log", make, wakeup)
        self._frames = frames
        self._run_ended = ended
        self._lost = lost
        self._beat = beat
        self.impatient = False
        # What has been passed on of each run; None where this process writes it.
        self._followed: dict[int, int | None] = {}
        self._watched = False
        self._token = ""
        self._left: set[int] = set()
        self._withdrawn: list[Claim] = []
        self._look_at = 0.0
        self._tasks.append(
            PeriodicTask("ending the runs of dead workers", _BEAT_SECONDS, self._tick)
        )
        self._room = PeriodicTask("making room in", _BEAT_SECONDS, self._make_room)
        self._tasks.append(self._room)
        self.start()

    # -- for anybody; ``done`` gets the result -----------------------------------------------------

    def claim(self, claim: Claim, done: Done) -> None:
        """See `RunLog.claim`; a fresh run is followed from here on. Never blocks."""

        def call(store: RunLog) -> tuple[Run, bool] | KeyReused | TooMany:
            result = store.claim(claim)
            self._see_to_room(store)
            if isinstance(result, tuple) and not result[1]:
                self._followed[result[0].number] = None
            return result

        self.submit(call, done)

    def append(self, appends: Sequence[Append], done: Done) -> None:
        """See `RunLog.append`; ``done`` gets its runs. Never blocks."""

        def call(store: RunLog) -> list[Run | None]:
            results = store.append(appends)
            self._see_to_room(store)
            if self._watched:
                self._wakeup.wake_others()
            return results

        def over(results: list[Run | None] | None, error: Exception | None) -> None:
            done(results, error)
            for run in results or ():
                if run is not None and run.ended is not None:
                    self._pass_on_end(run)

        self.submit(call, over)

    def attach(self, number: int, done: Done) -> None:
        """Follow a run if it goes on; ``done`` gets it as it is by then, or ``None``."""

        def call(store: RunLog) -> Run | None:
            run = store.watch(number)
            self._left.discard(number)
            if run is not None and run.ended is None:
                if number not in self._followed:
                    self._followed[number] = run.last
                    self._wakeup.wake_others()
                else:
                    passed_on = self._followed[number]
                    if passed_on is not None:
                        self._read_frames(store, run)
            return run

        self.submit(call, done)

    def let_be(self, number: int, done: Done) -> None:
        """Follow a run of another process no longer; what fails is tried again. Never blocks."""

        def call(store: RunLog) -> None:
            if self._followed.get(number) is not None:
                del self._followed[number]
            self._left.add(number)
            self._unwatch(store)

        self.submit(call, done)

    def end(
        self, number: int, outcome: Outcome, done: Done, *, unless_watched: bool = False
    ) -> None:
        """See `RunLog.end`. Never blocks."""

        def call(store: RunLog) -> Run | None:
            return self._end(store, number, outcome, unless_watched)

        self.submit(call, done)

    def withdraw(self, claim: Claim, done: Done) -> None:
        """End the run of a claim that was handed over before: nobody will write it. Never blocks.

        Its upstream was never called, so its key is free again: who was told that it could not be
        begun may repeat that. Harmless where there is no such run, as the claim was refused or
        found another. What fails is tried again.
        """

        def call(store: RunLog) -> None:
            self._withdrawn.append(claim)
            self._withdraw(store)

        self.submit(call, done)

    def leave(self, done: Done) -> None:
        """See `RunLog.leave`. Never blocks."""

        def call(store: RunLog) -> None:
            for run in store.leave():
                self._pass_on_end(run)
            self._wakeup.wake_others()

        self.submit(call, done)

    # -- the thread --------------------------------------------------------------------------------

    def _to_look(self) -> bool:
        # What it writes itself, thousands of times a second, is no news.
        now = time.monotonic()
        if self._open and not self._woken and now < self._look_at:
            return False
        self._look_at = now + LOOK_SECONDS
        return True

    def _read(self, store: RunLog) -> None:
        # Asked here and not for each append: who begins to watch rings, and is rung for what was
        # stored in between.
        watched, self._watched = self._watched, store.watched_by_others()
        if self._watched and not watched:
            self._wakeup.wake_others()
        numbers: list[int] = []
        own: list[int] = []
        for number, passed_on in self._followed.items():
            (own if passed_on is None else numbers).append(number)
        found = {run.number: run for run in store.follow(numbers, own)}
        for number in list(self._followed):
            run = found.get(number)
            if run is None:
                del self._followed[number]
                self._guard(self._lost, number)
                continue
            self._read_frames(store, run)
            if run.ended is not None:
                self._pass_on_end(run)
        if self.impatient:
            self._guard(self._beat)

    def _see_to_room(self, store: RunLog) -> None:
        """Look whether there is room as soon as the others have been served, not in a second."""
        if store.has_grown:
            self._room.due = 0.0

    def _make_room(self, store: RunLog) -> bool:
        again = store.make_room()
        if store.overfull and (number := store.largest()) is not None:
            log.warning("the run log is full of what is running: the largest run has to end")
            self._end(store, number, Outcome.failed(log_full()))
            again = True
        return again

    def _read_frames(self, store: RunLog, run: Run) -> None:
        passed_on = self._followed.get(run.number)
        while passed_on is not None and passed_on < run.last:
            frames = store.frames(run.number, passed_on, min(_PAGE, run.last - passed_on))
            if not frames:
                return  # forgotten in between, which the next look finds out
            self._guard(self._frames, run.number, passed_on + 1, [frame for _, frame in frames])
            passed_on = self._followed[run.number] = frames[-1][0]

    def _end(
        self, store: RunLog, number: int, outcome: Outcome, unless_watched: bool = False
    ) -> Run | None:
        run = store.end(number, outcome, unless_watched=unless_watched)
        if run is not None and run.ended is not None:
            self._wakeup.wake_others()
            self._read_frames(store, run)
            self._pass_on_end(run)
        return run

    def _withdraw(self, store: RunLog) -> None:
        while self._withdrawn:
            claim = self._withdrawn[0]
            run = store.find(claim.id, claim.subject)
            if run is not None:
                store.free_key(run.number)
                self._end(store, run.number, Outcome.failed(interrupted()))
            self._withdrawn.pop(0)

    def _unwatch(self, store: RunLog) -> None:
        while self._left:
            number = self._left.pop()
            try:
                store.unwatch(number)
            except StoreError:
                self._left.add(number)
                raise
            self._wakeup.wake_others()

    def _pass_on_end(self, run: Run) -> None:
        if run.number in self._followed:
            del self._followed[run.number]
            self._guard(self._run_ended, run)

    def _tick(self, store: RunLog) -> bool:
        ended = store.tick(bool(self._followed))
        if ended:
            self._wakeup.wake_others()
        for run in ended:
            self._read_frames(store, run)
            self._pass_on_end(run)
        self._guard(self._beat)
        if store.token != self._token:
            # Who was taken for dead has lost its viewers with all else, but they are still there.
            for number, passed_on in list(self._followed.items()):
                if passed_on is not None:
                    store.watch(number)
            self._token = store.token
        self._unwatch(store)
        self._withdraw(store)
        return bool(ended)
