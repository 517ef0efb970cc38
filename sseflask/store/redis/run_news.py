"""What becomes of the runs that a process follows, as its inbox or a look at the server says."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from sseflask.store.api import StoreError
from sseflask.store.redis.followed_runs import FollowedRuns
from sseflask.store.redis.link import Link
from sseflask.store.redis.run_scripts import (
    Found,
    RunScripts,
    UnknownProcess,
    ended_run,
    numbered_frames,
)
from sseflask.store.run_api import Ending, Run, RunFrames, RunKey

log = logging.getLogger("sseflask")

#: Number of runs that are looked at with each sign of life, and of frames that are read at once.
_LOOK_AT, _PAGE = 50, 500

#: Seconds in which a writer repeats what a server has not confirmed, before another one is.
_REPAIR_SECONDS = 1.5

Result = TypeVar("Result")


class RunNews:
    """Finds out what is new, and gives it to the listener. Methods block; each has its own link.

    What was missed is found by a look at each followed run in turn, some every second.

    Attributes:
        entered_again: the server may have forgotten what this process is attached to:
            `attach_again` is due.
        written: number of runs that this process writes, as the server says.
        inherits: whether it may go on with runs that nobody writes.
    """

    def __init__(
        self,
        scripts: RunScripts,
        runs: FollowedRuns,
        interrupted: Ending,
        *,
        inherits: bool = False,
    ) -> None:
        self._scripts = scripts
        self._runs = runs
        self._interrupted = interrupted
        self._lacking: dict[RunKey, float] = {}  # of the server, and since when
        self.inherits = inherits
        self._in_use = False
        self._next_look = 0
        self.entered_again = False
        self.written = 0

    # -- news --------------------------------------------------------------------------------------

    def take(self, link: Link, entries: Sequence[list[bytes]]) -> bool:
        """Pass on entries of the inbox; see ``lua/runs.lua``.

        Returns whether others have been attached to runs of this process, or are no longer.
        """
        others_changed = False
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
                self.read_frames(link, run, int(entry[3]))
            elif kind == b"e":
                ended, by = ended_run(entry)
                self.settle(link, ended, by.startswith(self._scripts.token.encode()))
            elif kind == b"w":
                others_changed = True
            elif kind == b"o":
                for each in self._runs.followed():
                    self._look(link, each)
        self._deliver(link, batch)
        return others_changed

    def _deliver(self, link: Link, batch: Sequence[RunFrames]) -> None:
        for run in self._runs.deliver(batch) if batch else ():
            self._look(link, run)

    def read_frames(self, link: Link, run: RunKey, last: int) -> None:
        """Give the listener a run's frames up to a number, if it has not got them."""
        while self._runs.is_behind(run, last):
            given = self._runs.given(run) or 0
            frames = self._scripts.frames(link, run, given, min(_PAGE, last - given))
            if not frames:
                return  # it is gone, which the next look finds out
            self._runs.deliver([RunFrames(run, given + 1, [frame for _, frame in frames])])

    def settle(self, link: Link, run: Run, here: bool) -> None:
        """Give the listener a run's end, after its last frames."""
        self.read_frames(link, run.key, run.last)
        self._runs.end(run, here)

    def _look(self, link: Link, run: RunKey) -> None:
        given = self._before(run)
        self._look_at(link, run, self._scripts.find(link, run), given)

    def _before(self, run: RunKey) -> tuple[int, bool]:
        return self._runs.given(run) or 0, self._runs.is_own(run)

    def _look_at(
        self, link: Link, run: RunKey, found: Found | None, before: tuple[int, bool]
    ) -> None:
        """Give the listener what it lacks of a followed run, which was found as it is now.

        ``before``: the number of the last frame that the listener had before it was found, and
        whether this process wrote the run.
        """
        given, was_own = before
        if self._runs.given(run) is None:
            return
        if found is None:
            self._runs.lose(run, None)
        elif found.run.ended is not None:
            self.settle(link, found.run, found.here)
        elif not self._runs.is_own(run):
            if found.run.last < given:
                self._end_unless_repaired(link, run)
            else:
                self._lacking.pop(run, None)
                self.read_frames(link, run, found.run.last)
        elif was_own and not found.here:
            self._runs.pass_on(run)
        elif found.run.last < given:
            # The server has lost frames. Whatever the writer adds would be refused, and it may have
            # nothing to add for a long time.
            self.end(link, run, self._interrupted)

    def _end_unless_repaired(self, link: Link, run: RunKey) -> None:
        """The server lacks frames that clients have: end a run that another process writes.

        Its writer may still have them, if the answer to it was lost as well. If it has died, who
        inherits the run would give their numbers to others.
        """
        now = time.monotonic()
        if now > self._lacking.setdefault(run, now) + _REPAIR_SECONDS:
            del self._lacking[run]
            self.end(link, run, self._interrupted)

    # -- this process ------------------------------------------------------------------------------

    def tick(self, link: Link) -> bool:
        """Say that this process is alive; end or inherit runs of dead ones; look at some runs.

        Returns whether there is more to do.
        """
        followed = self._runs.followed()
        if self._next_look >= len(followed):
            self._next_look = 0
        some = followed[self._next_look : self._next_look + _LOOK_AT]
        self._next_look += _LOOK_AT
        before = {run: self._before(run) for run in some}
        # First it finds out which of its runs are others' by now.
        inherits = self.inherits and not self.entered_again
        tick = self._scripts.tick(link, self._in_use, some, inherits=inherits)
        if tick.entered:
            self._in_use = True
            self.start_again()
        for run, found in tick.found.items():
            self._look_at(link, run, found, before[run])
        if tick.ended:
            log.warning("another worker is gone or stands still; its runs are ended")
        for ended in tick.ended:
            self.settle(link, ended, here=True)
        for inherited, successor in tick.inherited:
            log.info("run %s: another worker is gone, and this one goes on with it", inherited.id)
            self.read_frames(link, inherited.key, inherited.last)
            self._runs.inherit(inherited, successor)
        self.written = tick.written
        return tick.more

    def known(self, link: Link, call: Callable[[], Result]) -> Result:
        """Make a call for which the server has to know this process."""
        try:
            return call()
        except UnknownProcess:
            self._in_use = True
            self.tick(link)
        try:
            return call()
        except UnknownProcess:
            raise StoreError("the run log's other users took this process for dead") from None

    def attach(self, link: Link, run: RunKey) -> Run | None:
        """See `RunStore.attach`. Not while `attach_again` is called."""
        is_new = self._runs.expect(run)
        try:
            found = self.known(link, lambda: self._scripts.attach(link, run))
        except BaseException:
            if is_new:
                self._runs.forget(run)
            raise
        if found is None or found.ended is not None:
            if is_new:
                self._runs.forget(run)
            elif found is not None:
                self.settle(link, found, here=False)
        elif is_new and self._runs.begin(run, found.last):
            self._look(link, run)
        elif not is_new and not self._runs.is_own(run):
            self.read_frames(link, run, found.last)
        if found is not None and found.ended is None and self._runs.is_own(run):
            # What follows may be on its way back to this process.
            given = self._runs.given(run) or 0
            found = found._replace(last=given if is_new else min(found.last, given))
        return found

    def start_again(self) -> None:
        """Another server may lack what this process was attached to. Never blocks.

        Its inbox there may have entries whose ids are lower than those that were read before.
        """
        self._scripts.seen = b"0"
        self._lacking.clear()
        self.entered_again = True

    def attach_again(self, link: Link) -> None:
        """Attach to all that is followed, if the server may have forgotten that."""
        if not self.entered_again:
            return
        self.entered_again = False
        try:
            for run in self._runs.followed():
                if not self._runs.is_own(run):
                    self.known(link, partial(self._scripts.attach, link, run))
                self._look(link, run)
        except BaseException:
            self.entered_again = True
            raise

    def end(
        self,
        link: Link,
        run: RunKey,
        ending: Ending,
        *,
        unless_attached: bool = False,
        unless_passed_on: bool = False,
        withdrawn: bool = False,
    ) -> Run | None:
        """End a run, see `RunScripts.end`, and tell the listener."""
        answer = self._scripts.end(
            link,
            run,
            ending,
            unless_attached=unless_attached,
            unless_passed_on=unless_passed_on,
            withdrawn=withdrawn,
            shown=self._runs.given(run) or 0,
        )
        if answer is None:
            return None
        if answer.run.ended is not None:
            self.settle(link, answer.run, answer.here)
        return answer.run

    def leave(self, link: Link, runs: Sequence[RunKey]) -> set[RunKey]:
        """Leave some runs, see `RunScripts.leave`, and tell the listener. Returns which went on."""
        left = self._scripts.leave(link, runs)
        for run in left.passed_on:
            self._runs.pass_on(run)
        for ended in left.ended:
            self.settle(link, ended, here=True)
        return {*left.passed_on, *(ended.key for ended in left.ended)}
