"""The runs of one application: begun, viewed and stopped, from any worker."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator
from typing import NamedTuple

from flask import Flask, current_app

from sseflask.counters.counts import COUNTS, LOCK
from sseflask.runs.format_api import Format
from sseflask.runs.outcome import Generated, Outcome, interrupted, store_full, too_many
from sseflask.runs.process import RunProcess
from sseflask.runs.viewer import Viewer
from sseflask.runs.writer import Bounds
from sseflask.store.api import KeyReused, StoreError, key_reused, store_unavailable
from sseflask.store.open import PerProcess, open_run_store
from sseflask.store.run_api import Claim, Endings, Run, RunLimits, RunStore, StoreFull
from sseflask.transport.gunicorn.worker_start import on_worker_start

_EXTENSION = "sseflask.runs"


class Started(NamedTuple):
    """A run that was begun, or found by its key (``repeated``), and the request's own viewer."""

    run: Run
    viewer: Viewer
    repeated: bool


class Runs:
    """Begins, views and stops runs. Any thread or greenlet.

    Our worker opens the store at its start: it may have to end the runs of a dead worker before any
    request comes. Elsewhere the store is opened at the first use.

    Args:
        path: gives the store's file at the first use; ``":memory:"`` for runs of this process.
        seconds: how long a run is kept after its end.
        max_running: how many runs of one account may be running.
        outcomes: reads how runs ended.
    """

    def __init__(
        self,
        path: Callable[[], str],
        *,
        seconds: float,
        max_running: int,
        outcomes: type[Outcome] = Outcome,
        bounds: Bounds | None = None,
    ) -> None:
        self._path = path
        self._seconds = seconds
        self._max_running = max_running
        self._outcomes = outcomes
        self._bounds = bounds or Bounds()
        self._process = PerProcess(self._start_process)

    def init_app(self, app: Flask) -> None:
        """Make these the `current_runs` of the app's views."""
        app.extensions[_EXTENSION] = self
        on_worker_start.append(self._process.get)

    def start(
        self,
        generate: Callable[[], Generated],
        format: Format,
        *,
        subject: str,
        account: str,
        label: str,
        alone_seconds: float,
        key: str | None = None,
        digest: bytes = b"",
        announce: bool = False,
        early: bool = False,
        resumable: bool = True,
    ) -> Started:
        """Begin a run, or come back to the one with the same key.

        Blocks until the run is stored, not for its generator.

        Args:
            generate: gives the generator, not begun; called if there is no such run.
            alone_seconds: seconds that it goes on without viewers; infinite for ever.

        For the rest see `Claim` and `Viewer`.

        Raises:
            Failure: 409, the key belongs to other content; 429, too many of the account's are
                running; 503, the store can't do it now. The generator was not begun.
        """
        process = self._process.get()
        claim = Claim(
            secrets.token_hex(16), subject, account, self._max_running, label, key, digest
        )
        try:
            with _store_failures():
                claimed = process.store.claim(claim)
            if isinstance(claimed, tuple):
                run, repeated = claimed
                viewer = Viewer(
                    process, run, format, announce=announce, early=early, resumable=resumable
                )
                if not repeated:
                    process.write(run, generate(), alone_seconds, viewer)
                    with LOCK:
                        COUNTS.runs_began += 1
                return Started(run, viewer, repeated)
        except BaseException:
            # The store may have begun the run, or may do so later, and it would have no writer.
            process.store.withdraw(claim)
            raise
        raise key_reused("run") if isinstance(claimed, KeyReused) else too_many(claimed.running)

    def find(self, id: str, subject: str) -> Run | None:
        """Give a subject's run, if there is one. Blocks; may raise a 503 `Failure`."""
        with _store_failures():
            return self.store.find(id, subject)

    def view(
        self,
        run: Run,
        format: Format,
        after: int = 0,
        *,
        announce: bool = False,
        early: bool = False,
    ) -> Viewer:
        """View a run that was found, after some number. Never blocks."""
        return Viewer(self._process.get(), run, format, after, announce=announce, early=early)

    def stop(self, run: Run) -> Outcome | None:
        """Stop a run that was found; one that has ended stays as it is.

        Blocks until that is stored; may raise a 503 `Failure`. Returns how the run has ended,
        ``None`` if it has been forgotten meanwhile.
        """
        process = self._process.get()
        with _store_failures():
            ended = process.store.end(run.key, Outcome("stopped").ending())
        return None if ended is None else process.outcome_of(ended)

    @property
    def store(self) -> RunStore:
        """The store of this process. Blocks until it has been opened, the first time."""
        return self._process.get().store

    def close(self) -> None:
        """End the runs of this process and close the store, which can be used again. Blocks."""
        self._process.close()

    def _start_process(self) -> RunProcess:
        failures = (interrupted(), store_full(), store_unavailable("run store"))
        store = open_run_store(
            self._path(),
            RunLimits(self._seconds, self._bounds.store_bytes),
            Endings(*(Outcome.failed(failure).ending() for failure in failures)),
        )
        return RunProcess(store, self._outcomes, self._bounds)


@contextlib.contextmanager
def _store_failures() -> Iterator[None]:
    try:
        yield
    except StoreFull:
        raise store_full() from None
    except StoreError as error:
        raise store_unavailable("run store") from error


def current_runs() -> Runs:
    runs: Runs = current_app.extensions[_EXTENSION]
    return runs
