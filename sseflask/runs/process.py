"""What runs for the completions of one process: writers, viewers, and who leaves whom."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from sseflask.completions.failures import interrupted
from sseflask.completions.outcome import Outcome
from sseflask.counters.gauges import provide
from sseflask.loop.callbacks import Done, EventLoop, cooperative, run_in_main_loop
from sseflask.runs.append_queue import Batches
from sseflask.runs.hub import LiveRun, RunHub
from sseflask.runs.limits import Bounds, too_long
from sseflask.runs.viewer import Viewer
from sseflask.runs.writer import Answer, Writer
from sseflask.store.api import KeyReused
from sseflask.store.feed import Batch
from sseflask.store.process import Running
from sseflask.store.run_api import Append, Claim, Run, TooMany
from sseflask.store.sqlite.run_thread import RunThread
from sseflask.store.sqlite.runs import RunLog
from sseflask.store.sqlite.wakeup import WakeupSocket
from sseflask.store.unavailable import store_unavailable

__all__ = ["RunProcess"]


def _nobody(_result: Any, _error: Exception | None) -> None:
    """Nobody waits for it: what fails is tried again with the next beat."""


class RunProcess(Running[RunLog]):
    """The run log's thread of this process, what it writes, and who views it.

    Under gevent all of it but the thread belongs to the main thread's loop.
    """

    def __init__(
        self, make: Callable[[], RunLog], path: str | None, bounds: Bounds | None = None
    ) -> None:
        self._bounds = bounds or Bounds()
        self.live = RunHub(self._on_left)
        self._send: Callable[[Callable[[], None]], None]
        if cooperative():
            from sseflask.transport.detached.registry import DetachedStreams

            self._detached: DetachedStreams | None = DetachedStreams.current()
            event_loop = EventLoop.current()
            self._in_loop: Callable[[Callable[[], None]], None] = event_loop.call_soon_threadsafe
            self._send = self._detached.jobs.submit
        else:
            self._detached = None
            self._in_loop = self._send = lambda function: function()
        self._arriving: dict[int, int] = {}
        self._to_end: dict[int, Outcome] = {}
        self.thread = RunThread(
            make,
            WakeupSocket(path),
            frames=lambda number, first, frames: self._pass_on(
                lambda: self.live.take_in(number, first, frames)
            ),
            ended=lambda run: self._pass_on(partial(self._take_end, run)),
            lost=lambda number: self._pass_on(lambda: self.live.fail(number, interrupted())),
            beat=lambda: self._in_loop(self._look_around),
        )
        self.batches = Batches(self.thread.append, self._in_loop, self._stored, self._failed)
        self._withdraw = provide("runs", lambda: len(self.live.written()))
        super().__init__(self.thread)
        if cooperative():
            from sseflask.transport.gunicorn.drain import worker_drain

            worker_drain.background.append(self)

    # -- see `sseflask.transport.gunicorn.drain.BackgroundWork` ------------------------------------

    def interrupt(self) -> None:
        """End what is written here. Never blocks."""
        self.thread.leave(_nobody)

    def wait_until_done(self, seconds: float) -> bool:
        """Block until nothing is written here any more, and say whether that is so."""
        return self.live.wait_until_written(seconds)

    def _before_end(self) -> None:
        self._withdraw()
        self.thread.leave(_nobody)

    def close(self) -> None:
        """See `Running`."""
        if cooperative():
            from sseflask.transport.gunicorn.drain import worker_drain

            worker_drain.background.remove(self)
        super().close()

    # -- viewers -----------------------------------------------------------------------------------

    def attach(self, viewer: Viewer) -> None:
        """See `sseflask.runs.viewer.Reading`."""
        number = viewer.run.number
        with self.live.lock:
            self._arriving[number] = self._arriving.get(number, 0) + 1

        def start(done: Done) -> None:
            def attached(run: Run | None, error: Exception | None) -> None:
                self._in_loop(lambda: self._send(lambda: arrive(run, error)))

            def arrive(run: Run | None, error: Exception | None) -> None:
                with self.live.lock:
                    self._arriving[number] -= 1
                    if not self._arriving[number]:
                        del self._arriving[number]
                    if error is None:
                        self._arrived(viewer, run)
                    elif (live := self.live.get(number)) is not None:
                        live.check_viewers()  # the others may have left meanwhile
                done(None, error)

            self.thread.attach(number, attached)

        self.wait(start)

    def _arrived(self, viewer: Viewer, run: Run | None) -> None:
        live = self.live.get(viewer.run.number)
        if live is None and run is not None and run.ended is None:
            live = self.live.add(run)
        viewer.attached(live, run)
        if live is not None and live.writer is not None:
            live.writer.alone_since = None
        if live is not None:
            live.check_viewers()

    def frames(self, number: int, after: int, limit: int) -> list[tuple[int, bytes]]:
        """See `sseflask.runs.viewer.Reading`."""
        found: list[tuple[int, bytes]] = self.call(lambda log: log.frames(number, after, limit))
        return found

    def _on_left(self, live: LiveRun) -> None:
        """The last viewer here has left a run; the lock is held."""
        number = live.run.number
        if live.outcome is not None or live.failure is not None:
            return
        now = time.monotonic()
        if live.writer is not None:
            live.writer.alone_since = max(now, live.expected_until)
            if not live.writer.grace:
                self._in_loop(self._look_around)
        elif number not in self._arriving and now >= live.expected_until:
            self.live.drop(live)
            self.thread.let_be(number, _nobody)

    def _look_around(self) -> None:
        """End what has been alone or goes on for too long, and what could not be ended before.

        Of other processes' runs, let those be to which nobody has come back.
        """
        self.live.check_viewers()
        for number, outcome in list(self._to_end.items()):
            self.thread.end(number, outcome, partial(self._ended_late, number))
        written = [(live.run.number, live.writer) for live in self.live.written() if live.writer]
        seconds = self._bounds.run_seconds
        began_before = time.monotonic() - seconds
        for number, writer in written:
            if writer.began < began_before:
                self.thread.end(number, Outcome.failed(too_long(seconds)), _nobody)
        alone = {number: writer for number, writer in written if writer.alone_since is not None}
        self.thread.impatient = bool(alone)
        if alone:
            self.thread.submit(
                lambda log: log.watched(list(alone)), partial(self._seen_elsewhere, alone)
            )

    def _seen_elsewhere(
        self, alone: Mapping[int, Writer], watched: set[int] | None, error: Exception | None
    ) -> None:
        if error is None:
            self._in_loop(lambda: self._cancel_overdue(alone, watched or set()))

    def _cancel_overdue(self, alone: Mapping[int, Writer], watched: set[int]) -> None:
        for number, writer in alone.items():
            if writer.alone_since is None or number in self._arriving:
                continue  # somebody is there, or comes
            if number in watched:
                writer.alone_since = time.monotonic()  # from here on the time counts anew
            elif writer.overdue:
                self.thread.end(number, Outcome("cancelled"), _nobody, unless_watched=True)

    def _ended_late(self, number: int, run: Run | None, error: Exception | None) -> None:
        if error is not None:
            return

        def forget() -> None:
            self._to_end.pop(number, None)

        self._in_loop(forget)
        # Mostly it is known by now; not where it was ended before it was begun here.
        if run is None:
            self._pass_on(lambda: self.live.fail(number, interrupted()))
        elif run.ended is not None:
            self._pass_on(partial(self._take_end, run))

    # -- what is written ---------------------------------------------------------------------------

    def claim(self, claim: Claim) -> tuple[Run, bool] | KeyReused | TooMany:
        """See `RunLog.claim`. Blocks; raises `StoreError`."""
        claimed: tuple[Run, bool] | KeyReused | TooMany = self.wait(
            lambda done: self.thread.claim(claim, done)
        )
        return claimed

    def withdraw(self, claim: Claim) -> None:
        """See `RunThread.withdraw`. Never blocks."""
        self.thread.withdraw(claim, _nobody)

    def write(self, run: Run, answer: Answer, grace: float, viewer: Viewer) -> None:
        """Have a run that was claimed here written, seen by its first viewer."""
        most_bytes = self._bounds.most_run_bytes
        writer = Writer(run.number, answer, self.batches.add, grace, most_bytes)
        with self.live.lock:
            # A repetition may have come already.
            live = self.live.get(run.number) or self.live.add(run)
            live.writer = writer
            viewer.attached(live, run)
        # Whoever begins it, in whatever thread: its greenlet lives in the loop that goes on.
        run_in_main_loop(writer.start)

    def _stored(self, appends: Sequence[Append], runs: Sequence[Run | None]) -> None:
        refused = []
        passed_on = []
        for append, run in zip(appends, runs, strict=True):
            if run is None:
                refused.append(append.run)
            elif append.frames:
                passed_on.append(append)
        for number in refused:
            live = self.live.get(number)
            if live is not None and live.writer is not None:
                live.writer.cancel()
                # Somebody has ended it; here that may not be known yet, or never.
                self._to_end[number] = outcome = Outcome.failed(interrupted())
                self.thread.end(number, outcome, partial(self._ended_late, number))
        if passed_on:
            self._send(lambda: self._deliver(passed_on))

    def _deliver(self, appends: Sequence[Append]) -> None:
        batch = Batch()
        for append in appends:
            batch += self.live.take_in(append.run, append.first, append.frames)
        if batch and self._detached is not None:
            self._detached.send(batch)

    def _failed(self, appends: Sequence[Append]) -> None:
        for append in appends:
            self._to_end[append.run] = Outcome.failed(store_unavailable("run log"))
            self._hand_out(partial(self.live.fail, append.run, store_unavailable("run log")))

    def _take_end(self, run: Run) -> Batch:
        outcome = Outcome.from_json(run.outcome or "")
        return self.live.end(run, outcome)

    def _pass_on(self, take_in: Callable[[], Batch]) -> None:
        """From the thread: have something passed on, after what was before."""
        self._in_loop(lambda: self._hand_out(take_in))

    def _hand_out(self, take_in: Callable[[], Batch]) -> None:
        def job() -> None:
            batch = take_in()
            if self._detached is not None:
                self._detached.send(batch)
                self._detached.finish(batch.ended)

        self._send(job)
