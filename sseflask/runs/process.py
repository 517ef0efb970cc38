"""The runs of one process: its writers and viewers, and the end of runs without viewers."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, TypeAlias

from sseflask.counters.counts import COUNTS, LOCK, provide
from sseflask.logs.printable import printable
from sseflask.loop.callbacks import (
    EventLoop,
    call_outside_loop,
    cooperative,
    run_in_main_loop,
)
from sseflask.runs.live_runs import RETURN_SECONDS, LiveRun, LiveRuns
from sseflask.runs.outcome import Generated, Outcome, interrupted, too_long
from sseflask.runs.viewer import Viewer
from sseflask.runs.writer import Terms, Writer
from sseflask.store.api import StoreError, store_unavailable
from sseflask.store.catch_up import Batch, Frame
from sseflask.store.run_api import PassedOn, Run, RunFrames, RunKey, RunStore

log = logging.getLogger("sseflask")

#: Seconds at the end of a process for the ``finally`` of generators.
_CLOSING_SECONDS = 2.0


Generate: TypeAlias = Callable[[Writer], Generated]
"""Gives the generator of a run, not begun, which may be written by others too; never blocks."""

Read: TypeAlias = Callable[[int, int], "list[Frame]"]
"""Reads frames of one run: the first after a number, at most so many; blocks."""

Heir: TypeAlias = Callable[[Run, bytes, Read], "tuple[Terms, Generate]"]
"""Finds out how to go on with a run, given its claim's successor; may block, and raise anything."""


class RunProcess:
    """The `RunListener` of this process's writers and viewers; of the main loop, under gevent.

    Args:
        heir: for a process that goes on with the runs of others.
    """

    def __init__(
        self,
        store: RunStore,
        outcome_of: Callable[[Run], Outcome],
        heir: Heir | None = None,
    ) -> None:
        self.store = store
        self.outcome_of = outcome_of
        self._heir = heir
        self._writers: weakref.WeakSet[Writer] = weakref.WeakSet()
        self._arriving: dict[RunKey, int] = {}
        self.live_runs = LiveRuns(self._on_left)
        if cooperative():
            from sseflask.transport.detached.registry import DetachedStreams
            from sseflask.transport.gunicorn.drain import worker_drain

            self._detached: DetachedStreams | None = DetachedStreams.current()
            worker_drain.background.append(self)
        else:
            self._detached = None
        self._withdraw_gauge = provide("runs", lambda: len(self.live_runs.written()))
        store.follow(self, inherits=heir is not None)

    def close(self) -> None:
        """End what is written here, and leave the store. Blocks for a short time."""
        if cooperative():
            from sseflask.transport.gunicorn.drain import worker_drain

            worker_drain.background.remove(self)
        self._withdraw_gauge()
        self._leave()
        self.store.close()
        EventLoop.current().run_pending()

    # -- see `sseflask.transport.gunicorn.drain.BackgroundWork` ------------------------------------

    def take_no_more(self) -> None:
        self.store.inherit_no_more()

    def interrupt(self) -> None:
        self.store.leave()

    def wait_until_done(self, seconds: float) -> bool:
        return self.live_runs.wait_until_written(seconds)

    def finish(self) -> None:
        """Block until no run is written here. Ctrl-C cancels them: each ends with its next item."""
        try:
            self.live_runs.wait_until_written(None)
        except KeyboardInterrupt:
            self._leave()

    def _leave(self) -> None:
        """End or pass on what is written here, and let its generators run their ``finally``."""
        self.store.leave()
        # At the end of a process the loop does not run any more, and these ends are to be logged.
        EventLoop.current().run_pending()
        deadline = time.monotonic() + _CLOSING_SECONDS
        with self.live_runs.lock:
            writers = list(self._writers)
        for writer in writers:
            writer.join(max(0.0, deadline - time.monotonic()))

    # -- writers and viewers -----------------------------------------------------------------------

    def write(
        self,
        writer: Writer,
        generated: Generated,
        viewer: Viewer | None = None,
    ) -> None:
        """Start the writer of a run that this process owns, and attach its first viewer."""
        run = writer.run
        with self.live_runs.lock:
            self._writers.add(writer)
            # A repetition may have come already.
            live = self.live_runs.get(run.key) or self.live_runs.add(run)
            live.writer = writer
            live.followed = True
            if viewer is not None:
                viewer.attached(live, run)
            elif not live.is_viewed:  # by those of a run that is inherited
                writer.alone_since = time.monotonic() + RETURN_SECONDS  # for its first viewer
        # Whatever thread this is, the greenlet has to be in the loop that goes on.
        run_in_main_loop(partial(writer.start, generated))

    def attach(self, viewer: Viewer) -> None:
        """Find a viewer's run, and call `Viewer.attached`. Blocks; raises `StoreError`."""
        key = viewer.run.key
        with self.live_runs.lock:
            self._arrives(key)
            # Before the store follows the run: what comes from then on is not to be missed.
            live = self.live_runs.get(key) or self.live_runs.add(viewer.run)
        try:
            run = self.store.attach(key)
        except BaseException:
            # If the client has left, or the store is slow, the store still follows the run.
            self._arrived(key, live, detach=True)
            raise
        with self.live_runs.lock:
            if not live.followed and run is not None and run.ended is None:
                live.followed = True
                live.position = max(live.position, run.last)
            viewer.attached(live if live.followed else None, run)
            if live.followed and live.writer is not None:
                live.writer.alone_since = None
        self._arrived(key, live)

    def _arrives(self, key: RunKey) -> None:
        self._arriving[key] = self._arriving.get(key, 0) + 1

    def _arrived(self, key: RunKey, live: LiveRun, detach: bool = False) -> None:
        with self.live_runs.lock:
            self._arriving[key] -= 1
            if not self._arriving[key]:
                del self._arriving[key]
            if live.followed:
                live.check_viewers()  # the other viewers may have left meanwhile
            elif key not in self._arriving:
                self.live_runs.drop(live)
                if detach:
                    self.store.detach(key)

    def read(self, run: RunKey, after: int, limit: int) -> list[tuple[int, bytes]]:
        """See `RunStore.frames`."""
        return self.store.frames(run, after, limit)

    def _on_left(self, live: LiveRun) -> None:
        """The last viewer here has left a run; the lock is held."""
        key = live.run.key
        if live.outcome is not None or live.failure is not None:
            return
        now = time.monotonic()
        if live.writer is not None:
            live.writer.alone_since = max(now, live.expected_until)
            if not live.writer.terms.alone_seconds:
                self._find_alone()
        elif key not in self._arriving and now >= live.expected_until:
            self.live_runs.drop(live)
            self.store.detach(key)

    # -- runs without viewers, and runs that go on for too long ------------------------------------

    def beat(self) -> None:
        """End runs that had no viewers, or went on, for too long.

        Detach from other processes' runs to which no client has come back.
        """
        self.live_runs.check_viewers()
        now = time.monotonic()
        for live in self.live_runs.written():
            if live.writer is not None and now > live.writer.began + live.writer.terms.seconds:
                failure = too_long(live.writer.terms.seconds)
                self.store.end_soon(live.run.key, Outcome.failed(failure).ending())
        self._find_alone()

    def _find_alone(self) -> None:
        alone = [
            live.run.key
            for live in self.live_runs.written()
            if live.writer is not None and live.writer.alone_since is not None
        ]
        if alone:
            self.store.attached_elsewhere(alone, partial(self._cancel_overdue, alone))

    def _cancel_overdue(self, alone: Collection[RunKey], attached: Collection[RunKey]) -> None:
        for key in alone:
            live = self.live_runs.get(key)
            writer = None if live is None else live.writer
            if writer is None or writer.alone_since is None or key in self._arriving:
                continue  # it has ended, or has a viewer, or one is being attached
            if key in attached:
                writer.alone_since = time.monotonic()  # its seconds begin anew
            elif writer.overdue:
                self.store.end_soon(key, Outcome("cancelled").ending(), unless_attached=True)

    # -- what the store says, see `RunListener` ----------------------------------------------------

    def frames(self, batch: Sequence[RunFrames]) -> None:
        self._deliver(self.live_runs.deliver, batch)

    def ended(self, run: Run, here: bool) -> None:
        outcome = self.outcome_of(run)
        self._deliver(self.live_runs.end, run, outcome)
        if here:
            call_outside_loop(_log_end, run, outcome)

    def inherited(self, run: Run, successor: bytes) -> None:
        with self.live_runs.lock:
            live = self.live_runs.get(run.key) or self.live_runs.add(run)
            live.followed = True
            live.expect_return()  # its viewers were with the process that wrote it
            self._arrives(run.key)  # its writer does: it is not to be dropped before
        if cooperative():
            import gevent

            gevent.spawn(self._go_on, live, run, successor)
        else:
            threading.Thread(target=self._go_on, args=(live, run, successor), daemon=True).start()

    def _go_on(self, live: LiveRun, run: Run, successor: bytes) -> None:
        """Write a run that this process has inherited. Blocks."""
        try:
            assert self._heir is not None
            terms, generate = self._heir(run, successor, partial(self.store.frames, run.key))
            writer = Writer(run, self.store, terms, size=run.size)
            generated = generate(writer)
            with self.live_runs.lock:
                if self.live_runs.get(run.key) is not live:
                    return  # it was stopped meanwhile, or passed on
                self.write(writer, generated)
        except BaseException:  # a module that is imported may raise anything, such as SystemExit
            log.exception("nobody can go on with the run %s", run.id)
            self.store.end_soon(run.key, Outcome.failed(interrupted()).ending())
            return
        finally:
            self._arrived(run.key, live)
        log.info("run %s: goes on here after %d frames", run.id, run.last, extra={"run": run.id})

    def lost(self, run: RunKey, error: StoreError | None) -> None:
        if isinstance(error, PassedOn):
            self._deliver(self.live_runs.pass_on, run)
            return
        failure = interrupted() if error is None else store_unavailable("run store")
        self._deliver(self.live_runs.fail, run, failure)

    def _deliver(self, change: Callable[..., Batch], *arguments: Any) -> None:
        """Change the live runs and send what comes of it, after what came before."""
        if self._detached is None:
            self._send(change, *arguments)
        else:
            self._detached.jobs.submit(self._send, change, *arguments)

    def _send(self, change: Callable[..., Batch], *arguments: Any) -> None:
        batch = change(*arguments)  # for the queues of readers; and for what is detached
        if self._detached is not None and batch:
            self._detached.send(batch)
            self._detached.end(batch.ended, "done")


def _log_end(run: Run, outcome: Outcome) -> None:
    """Tell the server's log and the counters of a run that this process has ended."""
    failure = outcome.failure
    code = failure.code or failure.type if failure else ""
    how = outcome.reason or code
    with LOCK:
        COUNTS.runs_ended["interrupted" if code == "interrupted" else outcome.kind] += 1
    log.info(
        "run %s: %s%s after %d frames%s",
        run.id,
        outcome.kind,
        f" ({printable(str(how)[:100])})" if how else "",
        run.last,
        outcome.details(),
        extra={"run": run.id, "outcome": outcome.kind, "frames": run.last},
    )
