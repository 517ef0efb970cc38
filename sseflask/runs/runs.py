"""The runs of one application: begun, viewed and stopped, from any worker."""

from __future__ import annotations

import atexit
import contextlib
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from sseflask.counters.counts import COUNTS, LOCK
from sseflask.runs.format_api import Format
from sseflask.runs.outcome import Outcome, interrupted, store_full, too_many
from sseflask.runs.process import Generate, Heir, RunProcess
from sseflask.runs.viewer import PAGE, Viewer
from sseflask.runs.writer import Bounds, Terms, Writer
from sseflask.store.api import KeyReused, StoreError, key_reused, store_unavailable
from sseflask.store.catch_up import Frame
from sseflask.store.open import PerProcess, open_run_store
from sseflask.store.run_api import Claim, Endings, Run, RunLimits, RunStore, StoreFull
from sseflask.transport.gunicorn.worker_start import on_worker_start

#: How many runs of nobody may be running.
_NO_LIMIT = 1 << 31


class Started(NamedTuple):
    """A run that was begun, or found by its key (``repeated``), and the request's own viewer."""

    run: Run
    viewer: Viewer
    repeated: bool


@dataclass(frozen=True)
class Beginning:
    """What a run begins with, beside its generator; see `Claim`.

    Args:
        subject: the run's owner.
        account: whose running runs are counted; empty for nobody's.
        label: the kind of its frames.
        terms: how long it goes on.
        keep: seconds for which it is kept after its end, if not as long as others.
        successor: how another process can go on with it.
    """

    subject: str
    account: str
    label: str
    terms: Terms
    key: str | None = None
    digest: bytes = b""
    keep: float | None = None
    successor: bytes = b""


class Runs:
    """Begins, views and stops runs. Any thread or greenlet.

    The store is opened at the first use, see also `open_at_start`.

    Args:
        path: gives the store's file at the first use; ``":memory:"`` for runs of this process.
        seconds: how long a run is kept after its end.
        max_running: how many runs of one account may be running.
        outcome_of: reads how a run ended.
        heir: goes on with runs whose claims have a successor.

    Attributes:
        serves: whether this process answers requests. Only such a process goes on with the runs of
            others; to be set before the first use.
        memory_checked: whether it is known if memory would do, for the processes that there are.
    """

    memory_checked = False

    def __init__(
        self,
        path: Callable[[], str],
        *,
        seconds: float,
        max_running: int,
        outcome_of: Callable[[Run], Outcome] = Outcome.of,
        bounds: Bounds | None = None,
        heir: Heir | None = None,
    ) -> None:
        self.serves = False
        self._heir = heir
        self.bounds = bounds or Bounds()
        self._path = path
        self._seconds = seconds
        self._max_running = max_running
        self._outcome_of = outcome_of
        self._needed = False
        self._process = PerProcess(self._start_process)

    def open_at_start(self) -> None:
        """Let our worker open the store at its start.

        It may have to end the runs of a dead worker before any request comes.
        """
        self._needed = True
        on_worker_start.append(self._open_in_worker)

    def _open_in_worker(self) -> None:
        self.serves = True
        self._process.get()

    @property
    def in_use(self) -> bool:
        """Whether the store is open, or was to be opened at the start."""
        return self._needed or self._process.made

    def start(
        self,
        generate: Generate,
        beginning: Beginning,
        format: Format,
        *,
        announce: bool = False,
        early: bool = False,
        resumable: bool = True,
    ) -> Started:
        """Begin a run, or come back to the one with the same key; with a viewer, see `Viewer`.

        Blocks until the run is stored, not for its generator.

        Raises:
            Failure: 409, the key belongs to other content; 429, too many of the account's are
                running; 503, the store can't do it now. The generator was not begun.
        """
        with self._claimed(beginning) as (run, repeated):
            process = self._process.get()
            viewer = Viewer(
                process, run, format, announce=announce, early=early, resumable=resumable
            )
            if not repeated:
                self._write(generate, beginning, run, viewer)
            return Started(run, viewer, repeated)

    def start_alone(self, generate: Generate, beginning: Beginning) -> Run:
        """The same without a viewer. A process that does not serve waits for it at its end."""
        with self._claimed(beginning) as (run, repeated):
            if not repeated:
                self._write(generate, beginning, run)
                if not self.serves:
                    atexit.unregister(self._finish)
                    atexit.register(self._finish)
            return run

    def _finish(self) -> None:
        """At the end of a script: wait for its runs; Ctrl-C ends them."""
        if self._process.made and not self.serves:
            self._process.get().finish()

    @contextlib.contextmanager
    def _claimed(self, beginning: Beginning) -> Iterator[tuple[Run, bool]]:
        store = self._process.get().store
        claim = Claim(
            secrets.token_hex(16),
            beginning.subject,
            beginning.account,
            self._max_running if beginning.account else _NO_LIMIT,
            beginning.label,
            beginning.key,
            beginning.digest,
            beginning.keep,
            beginning.successor,
        )
        try:
            with _store_failures():
                claimed = store.claim(claim)
            if isinstance(claimed, tuple):
                yield claimed
                return
        except BaseException:
            # The store may have begun the run, or may do so later, and it would have no writer.
            store.withdraw(claim)
            raise
        raise key_reused("run") if isinstance(claimed, KeyReused) else too_many(claimed.running)

    def _write(
        self,
        generate: Generate,
        beginning: Beginning,
        run: Run,
        viewer: Viewer | None = None,
    ) -> None:
        process = self._process.get()
        writer = Writer(run, process.store, beginning.terms)
        process.write(writer, generate(writer), viewer)
        with LOCK:
            COUNTS.runs_began += 1

    def find(self, id: str, subject: str) -> Run | None:
        """Give a subject's run, if there is one. Blocks; may raise a 503 `Failure`."""
        if not id.isascii():
            return None  # what a client made up; a store could not even look for a lone surrogate
        with _store_failures():
            return self.store.find(id, subject)

    def frames(self, run: Run, after: int = 0) -> Iterator[Frame]:
        """The frames of a run that was found, up to its last one then. Blocks; may raise 503."""
        at = after
        while at < run.last:
            with _store_failures():
                frames = self.store.frames(run.key, at, min(PAGE, run.last - at))
            if not frames:
                raise interrupted()  # the run's frames are gone: the store was replaced
            yield from frames
            at = frames[-1][0]

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
            RunLimits(self._seconds, self.bounds.store_bytes),
            Endings(*(Outcome.failed(failure).ending() for failure in failures)),
        )
        return RunProcess(store, self._outcome_of, self._heir if self.serves else None)


@contextlib.contextmanager
def _store_failures() -> Iterator[None]:
    try:
        yield
    except StoreFull:
        raise store_full() from None
    except StoreError as error:
        raise store_unavailable("run store") from error
