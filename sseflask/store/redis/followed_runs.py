"""The runs that a process follows, and what its listener has been given of them. No I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import partial

from sseflask.loop import native
from sseflask.loop.callbacks import call_guarded
from sseflask.store.api import StoreError
from sseflask.store.run_api import PassedOn, Run, RunFrames, RunKey, RunListener

_tell = partial(call_guarded, "the listener of a run store")

#: In place of the number of the last frame that was given: the store has not said yet where it is.
_EXPECTED = -1

#: The number of ends by this process that are remembered, as each may be heard of twice; and of
#: ends of its own runs, which the server may lose.
_ENDS = 1000


class FollowedRuns:
    """Passes on to a listener what comes of followed runs: without a hole, nothing twice.

    The same news may come several times, from any thread. A lock is held while the listener is
    called, so that the order is kept; the listener must not call this object.
    """

    def __init__(self, listener: RunListener) -> None:
        self._listener = listener
        self._lock = native.rlock()
        self._given: dict[RunKey, int] = {}
        self._own: set[RunKey] = set()
        self._missed: set[RunKey] = set()
        self._ended_here: deque[RunKey] = deque(maxlen=_ENDS)
        self._own_ends: dict[RunKey, tuple[int, bytes]] = {}

    def __len__(self) -> int:
        return len(self._given)

    @property
    def own(self) -> set[RunKey]:
        """The runs that this process writes. Never blocks: the copy is one step of Python."""
        return self._own.copy()

    def followed(self) -> list[RunKey]:
        """All of them whose place is known."""
        with self._lock:
            return [run for run, given in self._given.items() if given != _EXPECTED]

    def given(self, run: RunKey) -> int | None:
        """The number of the last frame that was given; ``None`` if that is not known."""
        given = self._given.get(run)
        return None if given == _EXPECTED else given

    def is_own(self, run: RunKey) -> bool:
        return run in self._own

    def own_end(self, run: RunKey) -> tuple[int, bytes] | None:
        """The last frame's number and the outcome of a run that this process wrote, if known."""
        return self._own_ends.get(run)

    # -- which are followed ------------------------------------------------------------------------

    def write(self, run: RunKey) -> None:
        """Follow a run that this process has begun, and writes."""
        with self._lock:
            self._own.add(run)
            self._given[run] = 0

    def expect(self, run: RunKey) -> bool:
        """A run is about to be followed. Returns whether it was not followed before."""
        with self._lock:
            if run in self._given:
                return False
            self._given[run] = _EXPECTED
            return True

    def begin(self, run: RunKey, last: int) -> bool:
        """Follow an expected run after a frame. Returns whether news of it have come already."""
        with self._lock:
            if self._given.get(run) == _EXPECTED:  # or this process has inherited it meanwhile
                self._given[run] = last
            missed = run in self._missed
            self._missed.discard(run)
            return missed

    def forget(self, run: RunKey) -> None:
        with self._lock:
            self._given.pop(run, None)
            self._own.discard(run)
            self._missed.discard(run)

    # -- what comes of them ------------------------------------------------------------------------

    def deliver(self, batch: Sequence[RunFrames]) -> set[RunKey]:
        """Give the listener those frames that it has not got.

        Returns the runs of which frames are missing in between: these are to be read.
        """
        holes: set[RunKey] = set()
        news: list[RunFrames] = []
        with self._lock:
            for run, first, frames in batch:
                if not self._knows(run):
                    continue
                due = self._given[run] + 1
                if first > due:
                    holes.add(run)
                elif first + len(frames) > due:
                    self._given[run] = first + len(frames) - 1
                    news.append(
                        RunFrames(run, due, frames[due - first :] if due > first else frames)
                    )
            if news:
                _tell(self._listener.frames, news)
        return holes

    def is_behind(self, run: RunKey, last: int) -> bool:
        """Whether the listener has not been given a run's frames up to a number."""
        with self._lock:
            return self._knows(run) and self._given[run] < last

    def end(self, run: Run, here: bool) -> None:
        """A run has ended, whose frames have all been given if it is followed.

        ``here``: this process has ended it.
        """
        with self._lock:
            if not self._knows(run.key) and run.key in self._given:
                return  # it is asked for just now
            followed = run.key in self._given
            if here and (run.key in self._ended_here or run.key in self._own_ends):
                here = False  # the second time, after the server has lost the first
            if run.key in self._own:
                self._own_ends[run.key] = run.last, run.outcome or b""
                if len(self._own_ends) > _ENDS:
                    del self._own_ends[next(iter(self._own_ends))]
            self.forget(run.key)
            if here:
                self._ended_here.append(run.key)
            if followed or here:
                _tell(self._listener.ended, run, here)

    def lose(self, run: RunKey, error: StoreError | None) -> None:
        """Nothing more comes of a run. With an error it is followed all the same, until its end."""
        with self._lock:
            if error is None:
                self.forget(run)
            _tell(self._listener.lost, run, error)

    def inherit(self, run: Run, successor: bytes) -> None:
        """This process writes a run from now on, whose frames have all been given if followed."""
        with self._lock:
            self._own.add(run.key)
            self._given[run.key] = run.last
            _tell(self._listener.inherited, run, successor)

    def pass_on(self, run: RunKey) -> None:
        """Another process goes on with a run that this one has written, or will."""
        with self._lock:
            if run in self._own:
                self.forget(run)
                error = PassedOn("another process goes on with this run, or will")
                _tell(self._listener.lost, run, error)

    def beat(self) -> None:
        with self._lock:
            _tell(self._listener.beat)

    def _knows(self, run: RunKey) -> bool:
        given = self._given.get(run)
        if given == _EXPECTED:
            self._missed.add(run)
        return given is not None and given != _EXPECTED
