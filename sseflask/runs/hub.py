"""The runs that this process writes or has viewers of, and who is to get what. No I/O."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sseflask.completions.formats.formats import Format, View
from sseflask.completions.outcome import Outcome
from sseflask.errors import Failure
from sseflask.loop import native
from sseflask.store.run_api import Run
from sseflask.transport.detached.group import Group

if TYPE_CHECKING:
    from sseflask.runs.viewer import Viewer
    from sseflask.runs.writer import Writer

__all__ = ["Batch", "Live", "LiveRun"]

#: Seconds for a client that was sent away to come back: more than it is told to wait.
_RETURN_SECONDS = 10.0

Batch = list[tuple[Group, bytes]]
"""What detached streams are to be sent."""


class _Audience:
    """The detached viewers of a run in one format."""

    __slots__ = ("groups", "view")

    def __init__(self, view: View) -> None:
        self.view = view
        self.groups: tuple[Group, ...] = ()


class LiveRun:
    """A run that has not ended as far as this process knows. Guarded by `Live.lock`.

    Attributes:
        run: the run as it was found.
        position: the number of the last frame that has been passed on here.
        outcome: how it ended, once that is known.
        ended: the number of its terminal event then.
        failure: why nothing more is known of it here; it may go on elsewhere.
        writer: who writes it, where that is this process.
        expected_until: the monotonic time until which somebody who was sent away is expected
            back: until then he has not left.
        viewers: those with a greenlet or thread of their own.
        waiting: those of them that have all up to `position`, and take what comes.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.position = run.last
        self.outcome: Outcome | None = None
        self.ended = 0
        self.failure: Failure | None = None
        self.writer: Writer | None = None
        self.expected_until = 0.0
        self.viewers: set[Viewer] = set()
        self.waiting: set[Viewer] = set()
        self.audiences: dict[Callable[[str, str], View], _Audience] = {}

    @property
    def attended(self) -> bool:
        """Whether anybody is there who views it."""
        return bool(self.viewers) or bool(self.audiences)


class Live:
    """The live runs of one process. Any thread may call anything, whether it holds `lock` or not.

    Args:
        on_left: called with a live run when its last viewer here has left; holds the lock.

    Attributes:
        lock: guards all of it; nobody blocks while holding it.
    """

    def __init__(self, on_left: Callable[[LiveRun], None]) -> None:
        # The native one also under gevent: taken for each frame, it costs a tenth. Greenlets share
        # it, which does no harm, as nobody lets others run while holding it.
        self.lock: Any = native.rlock()
        self._fewer = threading.Condition(self.lock)
        self._on_left = on_left
        self._runs: dict[int, LiveRun] = {}

    def get(self, number: int) -> LiveRun | None:
        """A live run by its number in the log."""
        with self.lock:
            return self._runs.get(number)

    def add(self, live: LiveRun) -> None:
        """Take in a run from `LiveRun.position` on."""
        with self.lock:
            self._runs[live.run.number] = live

    def drop(self, live: LiveRun) -> None:
        """Forget a run."""
        with self.lock:
            if self._runs.get(live.run.number) is live:
                self._take_out(live.run.number)

    def _take_out(self, number: int) -> LiveRun | None:
        self._fewer.notify_all()
        return self._runs.pop(number, None)

    def wait_until_written(self, seconds: float) -> bool:
        """Block until this process writes none of them, and say whether that is so."""
        with self.lock:
            return self._fewer.wait_for(lambda: not self.written(), seconds)

    def written(self) -> list[LiveRun]:
        """Those that this process writes."""
        with self.lock:
            return [live for live in self._runs.values() if live.writer is not None]

    # -- viewers -----------------------------------------------------------------------------------

    def enter(self, live: LiveRun, viewer: Viewer) -> None:
        """A viewer has come."""
        with self.lock:
            live.viewers.add(viewer)

    def leave(self, live: LiveRun, viewer: Viewer) -> None:
        """A viewer has left, or goes on in a group; harmless to repeat."""
        with self.lock:
            live.waiting.discard(viewer)
            if viewer in live.viewers:
                live.viewers.remove(viewer)
                self.look_after(live)

    def expect(self, live: LiveRun, since: float | None = None) -> None:
        """A viewer is sent away, to come back here or on another worker.

        Args:
            live: the run.
            since: the monotonic time at which it was; by default now.
        """
        with self.lock:
            until = (time.monotonic() if since is None else since) + _RETURN_SECONDS
            live.expected_until = max(live.expected_until, until)

    def join(
        self,
        live: LiveRun,
        form: Format,
        view: View,
        chunked: bool,
        heartbeat: float,
        resumable: bool,
        failure_frame: Callable[[Failure], bytes],
    ) -> Group:
        """Leave a stream to a group, which gets everything from `position` on.

        Args:
            live: the run.
            form: the format.
            view: one that has taken all frames up to `position`, given away here.
            chunked: whether the body is sent in chunks.
            heartbeat: seconds of silence after which the group sends one.
            resumable: whether a client that is sent away comes back.
            failure_frame: encodes what a client is told when its stream fails.
        """
        with self.lock:
            audience = live.audiences.get(form.view)
            if audience is None:
                audience = live.audiences[form.view] = _Audience(view)
            for group in audience.groups:
                if (group.chunked, group.heartbeat, group.resumable) == (
                    chunked,
                    heartbeat,
                    resumable,
                ):
                    return group
            group = Group(
                chunked,
                heartbeat,
                lambda empty: self._dissolve(live, form, empty),
                resumable=resumable,
                failure_frame=failure_frame,
                kind="run",
            )
            audience.groups = (*audience.groups, group)
            return group

    def _dissolve(self, live: LiveRun, form: Format, group: Group) -> None:
        with self.lock:
            audience = live.audiences.get(form.view)
            if audience is None or group not in audience.groups:
                return
            audience.groups = tuple(each for each in audience.groups if each is not group)
            if group.last_reconnect:
                self.expect(live, group.last_reconnect)
            if not audience.groups:
                del live.audiences[form.view]
                self.look_after(live)

    def look_after(self, live: LiveRun) -> None:
        """See whether anybody is left, and say so where nobody is."""
        if not live.attended:
            self._on_left(live)

    def look_after_others(self) -> None:
        """`look_after` those that other processes write."""
        with self.lock:
            for live in list(self._runs.values()):
                if live.writer is None:
                    self.look_after(live)

    # -- what comes --------------------------------------------------------------------------------

    def take_in(self, number: int, first: int, frames: Sequence[bytes]) -> Batch:
        """Pass on a run's next frames; give what is to be sent to groups."""
        with self.lock:
            live = self._runs.get(number)
            if live is None:
                return []
            live.position = first + len(frames) - 1
            if live.waiting:
                for viewer in list(live.waiting):
                    viewer.put(first, frames)
            batch: Batch = []
            for audience in live.audiences.values():
                take = audience.view.take
                if len(frames) == 1:
                    body = take(first, frames[0])
                else:
                    body = b"".join([take(n, frame) for n, frame in enumerate(frames, first)])
                if body:
                    for group in audience.groups:
                        batch.append((group, body))
            return batch

    def end(self, run: Run, outcome: Outcome) -> tuple[Batch, list[Group]]:
        """A run has ended; give what is to be sent to groups, and which are to be ended then."""
        with self.lock:
            live = self._take_out(run.number)
            if live is None:
                return [], []
            live.outcome, live.ended = outcome, run.ended or live.position + 1
            for viewer in list(live.waiting):
                viewer.wake()
            batch: Batch = []
            for audience in live.audiences.values():
                body = audience.view.end(live.ended, outcome)
                batch += [(group, body) for group in audience.groups]
            if live.writer is not None:
                live.writer.cancel()
            return batch, [group for group, _ in batch]

    def fail(self, number: int, failure: Failure) -> tuple[Batch, list[Group]]:
        """Nothing more can be passed on of a run; give what is to be sent, as `end` does."""
        with self.lock:
            live = self._take_out(number)
            if live is None:
                return [], []
            live.failure = failure
            for viewer in list(live.waiting):
                viewer.wake()
            if live.writer is not None:
                live.writer.cancel()
            groups = [group for audience in live.audiences.values() for group in audience.groups]
            return [(group, group.failure_frame(failure)) for group in groups], groups
