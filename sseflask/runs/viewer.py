"""One viewer of a run: what is stored, then what comes, then the end; in any format."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from sseflask.completions.failures import interrupted
from sseflask.completions.formats.formats import Format
from sseflask.completions.formats.views import id_of
from sseflask.completions.outcome import Outcome
from sseflask.counters.counts import COUNTS, LOCK
from sseflask.errors import Failure
from sseflask.logs.request_ids import HEADER
from sseflask.loop.callbacks import wait_for_event
from sseflask.runs.hub import Live, LiveRun
from sseflask.store.api import StoreError
from sseflask.store.run_api import Run
from sseflask.store.unavailable import store_unavailable
from sseflask.transport.detached.group import Group
from sseflask.transport.source import Source
from sseflask.web.retries import SHOULD_RETRY
from sseflask.wire import HEARTBEAT, encode, events_in

__all__ = ["RUN_ID", "Viewer"]

#: The response header that names a run, and the one that has the upstream's request id.
RUN_ID, UPSTREAM_ID = "X-Run-Id", "X-Upstream-Request-Id"

#: Frames read from the log at once.
_PAGE = 200

#: Seconds between two looks at what has to come, and always does.
_LOOK_SECONDS = 0.5

#: Frames and bytes a queue may hold; who falls behind further reads from the log again.
_QUEUE, _QUEUE_BYTES = 1000, 256 * 1024


class Reading(Protocol):
    """What a viewer needs of the process it is in."""

    live: Live

    def attach(self, viewer: Viewer) -> None:
        """Find the run, and call `Viewer.attached`. Blocks; raises `StoreError`."""

    def frames(self, number: int, after: int, limit: int) -> list[tuple[int, bytes]]:
        """See `RunLog.frames`. Blocks; raises `StoreError`."""


class Viewer(Source):
    """The events of a run after some number.

    It costs nothing before it is first advanced, unless it is `attached` by who makes it. Advanced
    by one greenlet or thread; `put`, `wake` and `abandon` come from others.

    Args:
        reading: the process's runs.
        run: the run as it was found.
        form: the format.
        after: the number of the last frame that the client has.
        announce: tell a client that has nothing yet where it is, before the first frame.
        early: never let the response wait for the first frame.
        resumable: whether the client comes back when it is sent away.

    Attributes:
        comes_back: whether the client is to be sent away, ever.
        headers: of an error response, where it comes to that.
        told: further headers of a response, which get there before the first frame does: the
            upstream's.
        keeps_request_id: the request came with an id of its own, which its response names.
        repeatable: whether the same request leads to the same run, and not to another one that is
            paid for as well.
    """

    kind = "run"

    def __init__(
        self,
        reading: Reading,
        run: Run,
        form: Format,
        after: int = 0,
        *,
        announce: bool = False,
        early: bool = False,
        resumable: bool = True,
    ) -> None:
        self.run = run
        self.headers = {RUN_ID: run.id}
        self.told: Mapping[str, str] = {}
        self.keeps_request_id = False
        self.repeatable = True
        self.comes_back = resumable and form.resumable
        self._knows_where = after > 0
        self._reading = reading
        self._form = form
        self._view = form.view(run.id, run.dialect)
        self._after = after if form.resumable else 0
        # A view that knows what was before must have seen it: all of it, or the last frame.
        self._at = max(0, self._after - 1) if form.stateless else 0
        self._announces = announce and not after
        self._opening = HEARTBEAT if early else b""
        if self._announces:
            self._opening = b"id: %b.0\n\n" % run.id.encode()
        self._early = early
        self._may_raise = False
        self._ended = False
        self._abandoned = False
        # The lock of `Live` guards what follows.
        self._live: LiveRun | None = None
        self._outcome: Outcome | None = None
        self._queue: list[tuple[int, bytes]] = []
        self._queued = 0
        self._changed: threading.Event | None = None  # made by the first who waits
        if run.outcome is not None:
            self._outcome = Outcome.from_json(run.outcome)
        if self._after:
            with LOCK:
                COUNTS.streams["run"].resumed += 1

    @property
    def ended(self) -> bool:
        """See `Source`."""
        return self._ended

    @property
    def resumable(self) -> bool:
        """See `Source`; not before the client has been sent an id."""
        return self.comes_back and self._knows_where

    def extra_headers(self) -> Iterable[tuple[str, str]]:
        """See `Source`."""
        return self._told().items()

    # -- the ways to advance it --------------------------------------------------------------------

    def first(self, timeout: float) -> Iterator[bytes]:
        """See `Source`; a run that failed without a frame is an error response."""
        if self._early:
            return
        self._may_raise = True
        got = self._get(timeout)
        self._may_raise = False
        if got:
            yield got

    def frames(self) -> Iterator[bytes]:
        """See `Source`."""
        while not self._ended and not self._abandoned:
            frames = self._next()
            if frames is not None:
                yield frames
            else:
                self._wait(None)

    def get(self, timeout: float) -> tuple[bytes, bool] | None:
        """See `Source`."""
        if self._ended or self._abandoned:
            raise StopIteration
        frames = self._get(timeout)
        return None if frames is None else (frames, self.resumable)

    def history(self) -> Iterator[bytes]:
        """See `Source`."""
        if self._opening:
            yield self._open()
        while not self._ended and not self._abandoned:
            frames = self._next()
            if frames is not None:
                yield frames
            elif self.comes_back and not self._knows_where:
                self._wait(None)  # or it could be sent away to begin another run
            else:
                return

    def join(self, chunked: bool, heartbeat: float) -> Group | None:
        """See `Source`."""
        with self._reading.live.lock:
            live = self._live
            if live is None or self not in live.waiting or self._something_there():
                return None
            form = self._form
            tell = form.failure_event(self.run.dialect)

            def failure_frame(failure: Failure) -> bytes:
                return encode(tell(failure))

            # The group first: nobody is to find the run without a viewer in between.
            return self._reading.live.join(
                live, form, self._view, chunked, heartbeat, self.resumable, failure_frame
            )

    def refusal(self) -> Failure:
        """See `Source`; the run goes on, for who comes back with its id or its key."""
        failure = super().refusal()
        if not self.repeatable:
            failure.headers[SHOULD_RETRY] = "false"
        return self._with_headers(failure)

    def will_reconnect(self) -> None:
        """See `Source`."""
        with self._reading.live.lock:
            if self._live is not None:
                self._reading.live.expect(self._live)

    def abandon(self) -> None:
        """See `Source`."""
        with self._reading.live.lock:
            self._abandoned = True
            if self._live is not None:
                self._reading.live.leave(self._live, self)
            self._notify()

    # -- who passes things on, holding the lock ----------------------------------------------------

    def attached(self, live: LiveRun | None, run: Run | None) -> None:
        """The run has been found.

        Args:
            live: where it goes on.
            run: as it is stored, ``None`` where it is not there any more.
        """
        if live is not None:
            if self._abandoned:
                return
            self._live = live
            self._reading.live.enter(live, self)
        elif run is None:
            self._outcome = Outcome.failed(interrupted())
        else:
            self.run = run
            self._outcome = Outcome.from_json(run.outcome) if run.outcome is not None else None

    def put(self, first: int, frames: Sequence[bytes]) -> None:
        """Take the next frames."""
        self._queue += enumerate(frames, first)
        self._queued += sum(map(len, frames))
        if len(self._queue) > _QUEUE or self._queued > _QUEUE_BYTES:
            self._empty_queue()
            if self._live is not None:
                self._live.waiting.discard(self)  # to read them from the log
        self._notify()

    def wake(self) -> None:
        """Look again: the run has ended."""
        self._notify()

    def _empty_queue(self) -> None:
        self._queue = []
        self._queued = 0

    def _notify(self) -> None:
        if self._changed is not None:
            self._changed.set()

    def _something_there(self) -> bool:
        live = self._live
        if live is None:
            return True
        return (
            bool(self._queue)
            or self._at < live.position
            or live.outcome is not None
            or live.failure is not None
        )

    # -- what comes next ---------------------------------------------------------------------------

    def _get(self, timeout: float) -> bytes | None:
        deadline = time.monotonic() + timeout
        if self._opening and not self._may_raise:
            return self._open()
        while (frames := self._next()) is None:
            left = deadline - time.monotonic()
            if self._abandoned or self._ended or left <= 0:
                return None
            self._wait(left)
        self._opening = b""
        return frames

    def _open(self) -> bytes:
        opening, self._opening = self._opening, b""
        self._knows_where = self._knows_where or self._announces
        return opening

    def _wait(self, timeout: float | None) -> None:
        """Block until there may be something, or for some seconds."""
        with self._reading.live.lock:
            if self._abandoned or self._ended or self._something_there():
                return
            if self._changed is None:
                self._changed = threading.Event()
            changed = self._changed
            changed.clear()
        wait_for_event(changed, timeout)

    def _next(self) -> bytes | None:
        """The next bytes, ``None`` when only new ones are left to come, or none at all."""
        while not self._ended and not self._abandoned:
            if self._live is None and self._outcome is None:
                self._ask_to_attach()
                continue
            with self._reading.live.lock:
                live, frames = self._live, self._queue
                self._empty_queue()
                last = self.run.last if live is None else live.position
                outcome = self._outcome if live is None else live.outcome
                if not frames and self._at >= last and outcome is None:
                    assert live is not None
                    if live.failure is not None:
                        raise live.failure
                    live.waiting.add(self)
                    if last >= max(self._at, self._after):
                        return None
                    waits = True  # for what the client has got elsewhere to be passed on here too
                else:
                    waits = False
            if waits:
                self._wait(_LOOK_SECONDS)
                continue
            given, stored = self.events, False
            if not frames and self._at < last:
                frames, stored = self._read(min(_PAGE, last - self._at)), True
            elif not frames and outcome is not None:
                return self._end(live.ended if live else self.run.ended or last + 1, outcome)
            body = self._take(frames)
            if stored:
                with LOCK:
                    COUNTS.streams["run"].replayed += self.events - given
            if body:
                return body
        return None

    def _ask_to_attach(self) -> None:
        try:
            self._reading.attach(self)
        except StoreError as error:
            raise store_unavailable("run log") from error

    def _read(self, limit: int) -> list[tuple[int, bytes]]:
        try:
            frames = self._reading.frames(self.run.number, self._at, limit)
        except StoreError as error:
            raise store_unavailable("run log") from error
        if not frames:
            raise interrupted()  # somebody has taken the log away
        return frames

    def _take(self, frames: Sequence[tuple[int, bytes]]) -> bytes:
        bodies = []
        for number, frame in frames:
            if number <= self._at:
                continue
            body = self._view.take(number, frame)
            self._at = number
            if number > self._after:
                bodies.append(body)
        body = b"".join(bodies)
        if body:
            self._knows_where = True
            self.events += events_in(body)
        return body

    def _end(self, number: int, outcome: Outcome) -> bytes:
        failure = outcome.failure
        if failure is not None and self._may_raise and not self._at:
            raise self._with_headers(failure)
        self._ended = True
        self.abandon()
        try:
            last = self._view.end(number, outcome)
        except Failure as told:
            raise self._with_headers(told) from None
        self.events += events_in(last)
        return last

    def _told(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """The upstream's headers; its request id also by a name that nobody else uses."""
        told = {**self.told, **(more or {})}
        if (id := told.get(HEADER)) is not None:
            told[UPSTREAM_ID] = id
            if self.keeps_request_id:
                del told[HEADER]
        return told

    def _with_headers(self, failure: Failure) -> Failure:
        failure.headers = {**self._told(failure.headers), **self.headers}
        # Not to begin another run: whoever comes back goes on with this one.
        failure.cursor = id_of(self.run.id, self._after)
        return failure
