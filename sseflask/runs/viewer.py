"""One viewer of a run: the frames that are stored, then those that come, then the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Protocol

from sseflask.errors import SHOULD_RETRY, Failure
from sseflask.runs.format_api import Format, View, id_of
from sseflask.runs.live_runs import LiveRun, LiveRuns, MakeView
from sseflask.runs.outcome import Outcome, interrupted
from sseflask.store.api import StoreError, store_unavailable
from sseflask.store.catch_up import CatchUp, Frame
from sseflask.store.run_api import Run, RunKey
from sseflask.transport.stream import reconnect_line
from sseflask.wire import HEARTBEAT, encode, events_in

#: The response header that names a run.
RUN_ID = "X-Run-Id"

#: Frames that are read from the store at once.
PAGE = 200

#: Seconds between two looks for a frame that must come.
_LOOK_SECONDS = 0.5


class RunReader(Protocol):
    """What a viewer needs of its `RunProcess`."""

    live_runs: LiveRuns

    def attach(self, viewer: Viewer) -> None: ...

    def read(self, run: RunKey, after: int, limit: int) -> list[Frame]: ...

    def outcome_of(self, run: Run) -> Outcome: ...


class Viewer(CatchUp[MakeView]):
    """The events of a run after some number.

    It costs nothing before it is first advanced, unless `attached` was called.

    Args:
        run: the run as it was found.
        after: the number of the last frame that the client has.
        announce: tell a client that has nothing yet where it is, before the first frame.
        early: never let the response wait for the first frame.
        resumable: whether the client reconnects if it is told to.

    Attributes:
        can_reconnect: whether the client may be told to reconnect, ever.
        complete_headers: adds to the headers of a response, or of a failure, what may be known
            only with the first frame.
        repeatable: whether the same request, sent again, leads to this run; otherwise it begins
            another run, which costs as much.
    """

    kind = "run"
    store_name = "run store"
    view: View

    def __init__(
        self,
        reader: RunReader,
        run: Run,
        format: Format,
        after: int = 0,
        *,
        announce: bool = False,
        early: bool = False,
        resumable: bool = True,
    ) -> None:
        super().__init__(reader.live_runs.lock, format.view)
        self.run = run
        self.view = format.view(run.id, run.label)
        self.headers = {RUN_ID: run.id}
        self.complete_headers: Callable[[Mapping[str, str]], dict[str, str]] = dict
        self.repeatable = True
        self.can_reconnect = resumable and format.resumable
        self._has_id = after > 0
        self._reader = reader
        self._format = format
        self._after = after if format.resumable else 0
        # A view needs all earlier frames, or at least the last one if it is stateless.
        self._at = max(0, self._after - 1) if format.stateless else 0
        self._early = early
        self._opening = HEARTBEAT if early else b""
        if announce and not after:
            self._opening = self._start
        self._may_raise = False
        self._live: LiveRun | None = None
        if run.outcome is not None:
            self._found(run)
        if self._after:
            self._count_resumed()

    @property
    def resumable(self) -> bool:
        # Not before the client has been sent an id.
        return self.can_reconnect and self._has_id

    @property
    def _start(self) -> bytes:
        """The id of the run's start: an event without data, which no client shows."""
        return b"id: %b\n\n" % id_of(self.run.id, 0).encode()

    @property
    def failure_frame(self) -> Callable[[Failure], bytes]:
        event_of = self._format.failure_event(self.run.label)
        return lambda failure: encode(event_of(failure))

    def extra_headers(self) -> Iterable[tuple[str, str]]:
        return self.complete_headers({}).items()

    def first(self, timeout: float) -> Iterator[bytes]:
        """See `Source`; a run that failed without a frame is an error response."""
        if self._early:
            return
        self._may_raise = True
        try:
            got = self.get(timeout)
        except StopIteration:
            got = None
        self._may_raise = False
        if got is not None:
            yield got[0]

    def history(self) -> Iterator[bytes]:
        """See `Source`; a client that would reconnect to begin another run waits for an id."""
        yield from super().history()
        while self.can_reconnect and not self._has_id and not self._abandoned:
            self._wait(None)
            yield from super().history()

    def refusal(self) -> Failure:
        """See `Source`; the run goes on, for a client that comes back with its id or its key."""
        failure = super().refusal()
        if not self.repeatable:
            failure.headers[SHOULD_RETRY] = "false"
        return self._with_headers(failure)

    def will_reconnect(self) -> None:
        if self._live is not None:
            self._live.expect_return()

    def attached(self, live: LiveRun | None, run: Run | None) -> None:
        """Take the run if it goes on, or else as it is stored, if it is. The lock is held."""
        if live is None:
            self._found(run)
        elif not self._abandoned:
            self._live = live
            self._enter_feed(live)

    def _found(self, run: Run | None) -> None:
        outcome = Outcome.failed(interrupted())
        if run is not None and run.outcome is not None:
            outcome = self._reader.outcome_of(run)
        self.run = run or self.run
        self._base = self.run.last
        self._live = LiveRun(self.run, self._lock, lambda _live: None)
        self._live.end(self.run.ended or self.run.last + 1, outcome)

    def attach(self) -> None:
        """Count as a viewer from here on, before the client hears of it. Blocks.

        Raises:
            Failure: 503, the store can't do it now.
        """
        if self._live is None:
            try:
                self._reader.attach(self)
            except StoreError as error:
                raise store_unavailable(self.store_name) from error

    # -- what comes next ---------------------------------------------------------------------------

    def _next_step(self) -> Callable[[], bytes] | None:
        live = self._live
        if self._opening and not self._may_raise:
            return self._open
        if live is None:
            return self._attach
        if self._at < self._base:
            return self._read_page
        if self._queue:
            return self._from_queue
        if live.outcome is not None or live.failure is not None:
            return partial(self._give_end, live)
        if live.position < self._after:
            self._woken = False
            return self._wait_for_others
        return None

    def _open(self) -> bytes:
        opening, self._opening = self._opening, b""
        self._has_id |= opening != HEARTBEAT
        return opening

    def _attach(self) -> bytes:
        self._reader.attach(self)
        return b""

    def _read_page(self) -> bytes:
        limit = min(PAGE, self._base - self._at)
        frames = self._reader.read(self.run.key, self._at, limit)
        if not frames:
            raise interrupted()  # the run's frames are gone: the store was replaced
        self._at = frames[-1][0]
        events = self.events
        body = self._encode(frames)
        self._count_replayed(self.events - events)
        return body

    def _encode(self, frames: Sequence[Frame]) -> bytes:
        bodies = []
        for number, frame in frames:
            body = self.view.take(number, frame)
            if number > self._after:
                bodies.append(body)
        body = b"".join(bodies)
        if body:
            self._opening = b""
            self._has_id = True
            self.events += events_in(body)
        return body

    def _wait_for_others(self) -> bytes:
        """Wait for the delivery of a frame that the client has from another process."""
        self._wait(_LOOK_SECONDS)
        return b""

    def _give_end(self, live: LiveRun) -> bytes:
        outcome = live.outcome
        if outcome is None:
            assert live.failure is not None
            if live.passed_on and self.can_reconnect:
                # Who has nothing yet is told where it is, as it would begin another run.
                place = b"" if self._has_id else self._start
                self._end()
                return place + reconnect_line(0)
            raise live.failure
        if outcome.failure is not None and self._may_raise and not self._at:
            raise self._with_headers(outcome.failure)
        self._end()
        try:
            last = self.view.end(live.ended, outcome)
        except Failure as failure:
            raise self._with_headers(failure) from None
        self.events += events_in(last)
        return last

    def _with_headers(self, failure: Failure) -> Failure:
        failure.headers = {**self.complete_headers(failure.headers), **self.headers}
        # Not to begin another run: a client that comes back goes on with this one.
        failure.cursor = id_of(self.run.id, self._after)
        return failure
