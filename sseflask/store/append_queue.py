"""Groups what the writers of a process append, so that one transaction stores it for all."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial

from sseflask.loop import native
from sseflask.loop.callbacks import (
    Done,
    Timeout,
    call_in_main_loop_later,
    call_outside_loop,
    cooperative,
    wait_for_callback,
)
from sseflask.store.api import StoreError
from sseflask.store.run_api import FRAME_BYTES, RunAppend, RunFrames, RunKey

log = logging.getLogger("sseflask")

#: Seconds between the beginnings of two transactions. Appends that come meanwhile share the next.
_PACE = 0.002

#: Number of first frames of a run that are stored at once, without waiting for other runs' frames:
#: a client waits for the first frame that it can show, and one or two others may come before it.
_URGENT = 4

#: Seconds between two attempts to store, and seconds after which there is no other attempt.
_RETRY_SECONDS, _PATIENCE = 0.25, 20.0

#: Bytes of one transaction, about: other processes wait for it.
_GROUP_BYTES = 1 << 18

#: Bytes that a writer may be ahead of the store, and seconds after which it looks again.
_AHEAD, _ROOM_SECONDS = 1 << 20, 3600.0


class AppendQueue:
    """Collects appends while the transaction before is under way. Thread-safe.

    The queue is busy from the first append until nothing waits any more. A busy queue pauses until
    the next transaction may begin, or a transaction is under way or will be tried again. An urgent
    append (the first frames of a run) ends a pause. An append waits until a transaction takes it,
    and is being stored until that transaction is over. A run with too many bytes in both is full:
    its writer blocks in `wait_for_room`.

    Args:
        store: stores a group without blocking, and calls back in any thread: with the appends that
            are refused, or with an error.
        call_in_loop: calls the other two in the event loop.
        stored: called with the frames that are stored, if there are any.
        given_up: called with what could not be stored.
    """

    def __init__(
        self,
        store: Callable[[Sequence[RunAppend], Done], None],
        call_in_loop: Callable[..., None],
        stored: Callable[[Sequence[RunFrames]], object],
        given_up: Callable[[Sequence[RunAppend], Exception], None],
    ) -> None:
        self._store = store
        self._call_in_loop = call_in_loop
        self._stored = stored
        self._report_given_up = given_up
        self._lock = native.lock()
        self._waiting: dict[RunKey, RunAppend] = {}
        self._waiting_bytes = 0
        self._storing: dict[RunKey, RunAppend] = {}
        self._full: set[RunKey] = set()
        self._room: dict[RunKey, list[Done]] = {}
        self._given_up: set[RunKey] = set()
        self._busy = self._urgent = self._pausing = False
        self._began = 0.0
        self._failing_since: float | None = None
        self._pauses = 0

    def add(self, append: RunAppend) -> None:
        run = append.run
        with self._lock:
            if run in self._given_up:
                if append.ending is not None:  # nothing more comes
                    self._given_up.discard(run)
                return
            self._waiting_bytes += append.added
            waiting = self._waiting.setdefault(run, append)
            if waiting is not append:
                _extend(waiting, append)
            storing = self._storing.get(run)
            if waiting.added + (0 if storing is None else storing.added) > _AHEAD:
                self._full.add(run)
            self._urgent = self._urgent or append.first <= _URGENT
            if self._busy and not (self._urgent and self._pausing):
                return
            self._busy = True
            if self._pause():
                return
        self._begin()

    def wait_for_room(self, run: RunKey) -> None:
        while run in self._full:
            with contextlib.suppress(Timeout):
                wait_for_callback(partial(self._call_when_room, run), _ROOM_SECONDS)

    def _call_when_room(self, run: RunKey, done: Done) -> None:
        with self._lock:
            if run in self._full:
                self._room.setdefault(run, []).append(done)
                return
        done(None, None)

    def _make_room(self) -> None:
        """Nothing is being stored any more: let the writers go on whose runs are not full now."""
        for run in list(self._full):
            waiting = self._waiting.get(run)
            if waiting is None or waiting.added <= _AHEAD:
                self._full.discard(run)
                for done in self._room.pop(run, ()):
                    done(None, None)

    def _pause(self) -> bool:
        """Wait for others to join the next transaction, if an event loop can do the waiting."""
        left = self._began + _PACE - time.monotonic()
        if self._urgent or left <= 0 or not cooperative():
            self._pausing = False
            return False
        self._pausing = True
        self._pauses += 1
        call_in_main_loop_later(left, partial(self._go_on, self._pauses))
        return True

    def _go_on(self, pause: int) -> None:
        with self._lock:
            if not self._pausing or pause != self._pauses:
                return  # something urgent has ended this pause
            self._pausing = False
        self._begin()

    def _begin(self) -> None:
        with self._lock:
            self._storing = self._take()
            appends = list(self._storing.values())
            self._began = time.monotonic()
        self._store(appends, partial(self._call_in_loop, self._over, appends))

    def _take(self) -> dict[RunKey, RunAppend]:
        """Take the appends of the next transaction, urgent ones first."""
        waiting, self._waiting = self._waiting, {}
        if self._waiting_bytes <= _GROUP_BYTES:
            self._waiting_bytes = 0
            self._urgent = False
            return waiting
        taken: dict[RunKey, RunAppend] = {}
        left = _GROUP_BYTES
        for append in sorted(waiting.values(), key=_can_wait):
            if left <= 0:
                self._waiting[append.run] = append
                continue
            amount, size = _fitting(append.frames, left)
            if amount < len(append.frames):
                taken[append.run] = _split_off(append, amount)
                self._waiting[append.run] = append
            else:
                taken[append.run] = append
            left -= size
            self._waiting_bytes -= size
        self._urgent = not all(map(_can_wait, self._waiting.values()))
        return taken

    def _over(
        self, appends: list[RunAppend], refused: Sequence[RunAppend] | None, error: Exception | None
    ) -> None:
        now = time.monotonic()
        if error is not None:
            since = self._failing_since = self._failing_since or now
            if isinstance(error, StoreError) and now < since + _PATIENCE:
                self._put_back(appends)
                call_in_main_loop_later(_RETRY_SECONDS, self._begin)
                return
            unexpected = None if isinstance(error, StoreError) else error
            said = "runs can't be stored, and are given up: %s"
            call_outside_loop(partial(log.error, said, error, exc_info=unexpected))
            self._failing_since = None
            self._give_up([append.run for append in appends])
            self._report_given_up(appends, error)
        else:
            self._failing_since = None
            if frames := _stored_frames(appends, refused or ()):
                self._stored(frames)
        with self._lock:
            self._storing = {}
            if self._full:
                self._make_room()
            if not self._waiting:
                self._busy = False
                return
            if self._pause():
                return
        self._begin()

    def _give_up(self, runs: Sequence[RunKey]) -> None:
        with self._lock:
            self._given_up.update(runs)
            for run in runs:
                waiting = self._waiting.pop(run, None)
                self._waiting_bytes -= 0 if waiting is None else waiting.added

    def _put_back(self, appends: list[RunAppend]) -> None:
        with self._lock:
            newer, self._waiting, self._storing = self._waiting, self._storing, {}
            self._waiting_bytes += sum(append.added for append in appends)
            for run, append in newer.items():
                before = self._waiting.setdefault(run, append)
                if before is not append:
                    _extend(before, append)


def _extend(append: RunAppend, by: RunAppend) -> None:
    append.frames += by.frames
    append.notes += by.notes
    append.size = by.size
    append.added += by.added
    append.ending = by.ending


def _stored_frames(appends: Sequence[RunAppend], refused: Sequence[RunAppend]) -> list[RunFrames]:
    runs = {append.run for append in refused}
    return [
        RunFrames(append.run, append.first, append.frames)
        for append in appends
        if append.frames and append.run not in runs
    ]


def _can_wait(append: RunAppend) -> bool:
    return append.first > _URGENT


def _fitting(frames: Sequence[bytes], room: int) -> tuple[int, int]:
    """How many frames, at least one, fit into the rest of a transaction, and their size."""
    amount = size = 0
    for frame in frames:
        if size >= room:
            break
        size += len(frame) + FRAME_BYTES
        amount += 1
    return amount, size


def _split_off(append: RunAppend, amount: int) -> RunAppend:
    frames, append.frames = append.frames[:amount], append.frames[amount:]
    notes, append.notes = append.notes[:amount], append.notes[amount:]
    taken = RunAppend(append.run, append.first, frames, notes, append.size - append.added)
    append.added -= taken.added
    taken.size += taken.added
    append.first += amount
    return taken
