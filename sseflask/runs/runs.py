"""The completions of one application: begun, viewed and stopped, from any worker."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Literal, NamedTuple

from flask import Flask, current_app

from sseflask.completions.formats.formats import Format
from sseflask.completions.outcome import Outcome
from sseflask.counters.counts import COUNTS, LOCK
from sseflask.defaults import MEMORY
from sseflask.runs.limits import Bounds
from sseflask.runs.process import RunProcess
from sseflask.runs.viewer import Viewer
from sseflask.runs.writer import Answer
from sseflask.store.api import Extent, KeyReused
from sseflask.store.process import SHORT_PATIENCE, PerProcess
from sseflask.store.run_api import Claim, Run, TooMany
from sseflask.store.sqlite.runs import RunLog
from sseflask.transport.gunicorn.worker_start import on_worker_start

__all__ = ["Runs", "Started", "current_runs"]

_EXTENSION = "sseflask.runs"


class Started(NamedTuple):
    """What became of a request for a run.

    Args:
        run: the run.
        viewer: the request's own, from the start.
        repeated: there had been a request with the same key.
    """

    run: Run
    viewer: Viewer
    repeated: bool


class Runs:
    """Begins, views and stops completions. Any thread or greenlet.

    Elsewhere than under our worker nothing runs before the first use.

    Args:
        path: gives the log's file at the first use; ``":memory:"`` for a log of this process.
        seconds: how long a run is kept after its end.
        most: how many runs of one account may be running.
        bounds: what a run may take, and all of them.
    """

    def __init__(
        self, path: Callable[[], str], *, seconds: float, most: int, bounds: Bounds | None = None
    ) -> None:
        self._path = path
        self._seconds = seconds
        self._most = most
        self._bounds = bounds or Bounds()
        self._running = PerProcess(self._run)

    def init_app(self, app: Flask) -> None:
        """Make these the runs of the app's views.

        Under our worker they run from its start: somebody has to end what a dead worker has left,
        also where nobody asks.
        """
        app.extensions[_EXTENSION] = self
        on_worker_start.append(self._running.get)

    def start(
        self,
        answer: Callable[[], Answer],
        form: Format,
        *,
        subject: str,
        account: str,
        dialect: str,
        grace: float,
        key: str | None = None,
        digest: bytes = b"",
        announce: bool = False,
        early: bool = False,
        resumable: bool = True,
    ) -> Started | KeyReused | TooMany:
        """Begin a run, or come back to the one with the same key.

        Blocks until the run is in the log, not for the upstream.

        Args:
            answer: gives the upstream's answer, not begun; called if there is no such run.
            form: the format of the request's own viewer.
            subject: whom it belongs to.
            account: whose running runs are counted.
            dialect: how the upstream's frames are to be read.
            grace: seconds that it goes on without viewers; infinite for ever.
            key: scoped to subject and route.
            digest: stands for the content.
            announce: see `Viewer`.
            early: see `Viewer`.
            resumable: see `Viewer`.

        Raises:
            LogFull: what is running fills the log; the upstream has not been called.
            StoreError: the store can't do it now; the upstream has not been called.
        """
        running = self._running.get()
        claim = Claim(secrets.token_hex(16), subject, account, self._most, dialect, key, digest)
        try:
            claimed = running.claim(claim)
            if not isinstance(claimed, tuple):
                refused: KeyReused | TooMany = claimed
                return refused
            run, repeated = claimed
            viewer = Viewer(running, run, form, announce=announce, early=early, resumable=resumable)
            if not repeated:
                running.write(run, answer(), grace, viewer)
                with LOCK:
                    COUNTS.runs_began += 1
        except BaseException:
            # It may still be claimed, or has been, and nobody would write it.
            running.withdraw(claim)
            raise
        return Started(run, viewer, repeated)

    def find(self, id: str, subject: str) -> Run | None:
        """Give a run of somebody's, ``None`` where there is none that is theirs.

        Blocks shortly. Raises `StoreError`.
        """
        found: Run | None = self._running.get().call(lambda log: log.find(id, subject))
        return found

    def view(
        self,
        run: Run,
        form: Format,
        after: int = 0,
        *,
        announce: bool = False,
        early: bool = False,
    ) -> Viewer:
        """View a run that was found, after some number. Never blocks."""
        return Viewer(self._running.get(), run, form, after, announce=announce, early=early)

    def stop(self, run: Run) -> Run | None:
        """Stop a run that was found; one that has ended stays as it is.

        Blocks until that is in the log. Raises `StoreError`.

        Returns:
            the run after that, ``None`` where it has been forgotten meanwhile.
        """
        running = self._running.get()
        stopped: Run | None = running.wait(
            lambda done: running.thread.end(run.number, Outcome("stopped"), done)
        )
        return stopped

    def health(self) -> Literal["available", "unavailable", "busy"]:
        """See `PerProcess.health`."""
        return self._running.get().health()

    def extent(self) -> Extent:
        """How much the log holds, and the age of the run that ended first.

        Blocks for half a second at most.

        Raises:
            StoreError: it does not say so at once.
        """
        extent: Extent = self._running.get().call(lambda log: log.extent(), SHORT_PATIENCE)
        return extent

    def close(self) -> None:
        """End what runs for it in this process; the next use starts it again. Blocks shortly."""
        self._running.close()

    def _run(self) -> RunProcess:
        path = self._path()
        most_bytes = self._bounds.log_bytes
        return RunProcess(
            lambda: RunLog(path, seconds=self._seconds, most_bytes=most_bytes),
            None if path == MEMORY else path,
            self._bounds,
        )


def current_runs() -> Runs:
    """The runs of the current app."""
    runs: Runs = current_app.extensions[_EXTENSION]
    return runs
