"""The runs that this process writes or has viewers of. No I/O."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from sseflask.errors import Failure
from sseflask.loop import native
from sseflask.runs.format_api import View
from sseflask.runs.outcome import Outcome
from sseflask.store.catch_up import Audience, Batch, Feed
from sseflask.store.run_api import Run, RunFrames, RunKey
from sseflask.transport.detached.group import Group
from sseflask.transport.failures import shutting_down
from sseflask.transport.stream import reconnect_line

if TYPE_CHECKING:
    from sseflask.runs.writer import Writer

#: Seconds within which a client that was sent a ``retry`` line is back: longer than it says.
RETURN_SECONDS = 10.0

#: Milliseconds over which the viewers of a run that another process goes on with come back.
_RETURN_JITTER = 500

MakeView: TypeAlias = Callable[[str, str], View]
"""Makes the views of one format, see `Format.view`."""


class LiveRun(Feed[MakeView]):
    """The feed of a run that has not ended as far as this process knows.

    The lock of the `LiveRuns` guards all of it. Viewers with a greenlet or thread get the stored
    frames. For detached ones, a view turns the frames into bytes once for each format.

    Attributes:
        run: the run as it was found.
        outcome: how the run ended, as soon as that is known.
        ended: the number of its terminal event then.
        failure: why nothing more is known of the run here; it may go on elsewhere.
        passed_on: it does go on elsewhere, and clients that can find it there.
        followed: the store gives what comes after the position.
        writer: set if this process writes the run.
        expected_until: until this monotonic time a client that was told to reconnect still counts
            as a viewer.
    """

    def __init__(self, run: Run, lock: Any, on_left: Callable[[LiveRun], None]) -> None:
        super().__init__(lock, run.last)
        self.run = run
        self.outcome: Outcome | None = None
        self.ended = 0
        self.failure: Failure | None = None
        self.passed_on = False
        self.followed = False
        self.writer: Writer | None = None
        self.expected_until = 0.0
        self._on_left = on_left

    def expect_return(self, since: float | None = None) -> None:
        """Expect a client back, here or elsewhere, that was told at ``since`` to reconnect."""
        with self.lock:
            until = (time.monotonic() if since is None else since) + RETURN_SECONDS
            self.expected_until = max(self.expected_until, until)

    @property
    def is_viewed(self) -> bool:
        """Whether the run has viewers here. Hold the lock."""
        return bool(self._audiences)

    def check_viewers(self) -> None:
        """Call ``on_left`` (see `LiveRuns`) if the run has no viewers here. Hold the lock."""
        if not self.is_viewed:
            self._on_left(self)

    def _removed(self, audience: Audience[MakeView]) -> None:  # noqa: ARG002  # others may be left
        self.check_viewers()

    def _on_empty_group(self, audience: Audience[MakeView], empty: Group) -> None:
        if empty.last_reconnect:
            self.expect_return(empty.last_reconnect)
        super()._on_empty_group(audience, empty)

    # -- what comes, with the lock held ------------------------------------------------------------

    def deliver(self, first: int, frames: Sequence[bytes], batch: Batch) -> None:
        """Queue the next frames for viewers with a greenlet or thread.

        Adds the bytes for the groups of detached ones to a batch.
        """
        if first <= self.position:  # some were delivered when it was followed earlier
            frames = frames[self.position + 1 - first :]
            first = self.position + 1
            if not frames:
                return
        self.position = first + len(frames) - 1
        for audience in self._audiences.values():
            if audience.readers:
                numbered = list(enumerate(frames, first))
                for viewer in audience.readers:
                    viewer.put(numbered, self.position)
            if audience.groups:
                take = audience.view.take
                body = take(first, frames[0])
                if len(frames) > 1:
                    further = enumerate(frames[1:], first + 1)
                    body += b"".join([take(number, frame) for number, frame in further])
                if body:
                    for group in audience.groups:
                        batch.append((group, body))

    def end(self, number: int, outcome: Outcome) -> Batch:
        """End all streams with the run's terminal event."""
        self.ended, self.outcome = number, outcome
        batch = Batch()
        for audience in self._audiences.values():
            if audience.groups:
                body = audience.view.end(number, outcome)
                batch += ((group, body) for group in audience.groups)
        return self._close(batch)

    def fail(self, failure: Failure) -> Batch:
        """End all streams with a failure."""
        self.failure = failure
        groups = [group for audience in self._audiences.values() for group in audience.groups]
        return self._close(Batch((group, group.failure_frame(failure)) for group in groups))

    def pass_on(self) -> Batch:
        """End all streams: another process writes the run now, and their clients find it there."""
        self.failure = shutting_down()
        self.passed_on = True
        self.expect_return()
        groups = [group for audience in self._audiences.values() for group in audience.groups]
        return self._close(
            Batch(
                (
                    group,
                    reconnect_line(_RETURN_JITTER)
                    if group.resumable
                    else group.failure_frame(self.failure),
                )
                for group in groups
            )
        )

    def _close(self, batch: Batch) -> Batch:
        batch.ended = tuple(group for group, _ in batch)
        for audience in self._audiences.values():
            for viewer in audience.readers or ():
                viewer.wake()
        if self.writer is not None:
            self.writer.cancel()
        return batch


class LiveRuns:
    """The live runs of one process. Any thread may call any method; its lock is reentrant.

    Only `wait_until_written` blocks.

    Args:
        on_left: called with a live run when its last viewer here has left. The lock is held.
    """

    def __init__(self, on_left: Callable[[LiveRun], None]) -> None:
        self.lock: Any = native.rlock()
        self._fewer = threading.Condition(self.lock)
        self._on_left = on_left
        self._runs: dict[RunKey, LiveRun] = {}

    def get(self, key: RunKey) -> LiveRun | None:
        with self.lock:
            return self._runs.get(key)

    def add(self, run: Run) -> LiveRun:
        """Begin to deliver a run, after `Run.last`."""
        with self.lock:
            live = self._runs[run.key] = LiveRun(run, self.lock, self._on_left)
            return live

    def drop(self, live: LiveRun) -> None:
        with self.lock:
            if self._runs.get(live.run.key) is live:
                self._remove(live.run.key)

    def _remove(self, key: RunKey) -> LiveRun | None:
        self._fewer.notify_all()
        return self._runs.pop(key, None)

    def wait_until_written(self, seconds: float | None) -> bool:
        """Block until no run is written here, or some seconds are over. Returns whether none is."""
        with self.lock:
            return self._fewer.wait_for(lambda: not self.written(), seconds)

    def written(self) -> list[LiveRun]:
        with self.lock:
            return [live for live in self._runs.values() if live.writer is not None]

    def check_viewers(self) -> None:
        """`LiveRun.check_viewers` of all runs that other processes write."""
        with self.lock:
            for live in list(self._runs.values()):
                if live.writer is None:
                    live.check_viewers()

    def deliver(self, stored: Sequence[RunFrames]) -> Batch:
        """Deliver the next frames of some runs; see `LiveRun`."""
        batch = Batch()
        with self.lock:
            for key, first, frames in stored:
                live = self._runs.get(key)
                if live is not None:
                    live.deliver(first, frames, batch)
        return batch

    def end(self, run: Run, outcome: Outcome) -> Batch:
        """Deliver the end of a run, and forget the run."""
        with self.lock:
            live = self._remove(run.key)
            return Batch() if live is None else live.end(run.ended or live.position + 1, outcome)

    def pass_on(self, key: RunKey) -> Batch:
        """Deliver that another process writes a run now, and forget the run."""
        with self.lock:
            live = self._remove(key)
            return Batch() if live is None else live.pass_on()

    def fail(self, key: RunKey, failure: Failure) -> Batch:
        """Deliver that nothing more will be known of a run here, and forget the run."""
        with self.lock:
            live = self._remove(key)
            return Batch() if live is None else live.fail(failure)
