"""Advances a run's generator and stores what it yields, with or without viewers."""

from __future__ import annotations

import logging
import math
import threading
import time
from dataclasses import dataclass
from typing import Any

from sseflask.counters.counts import COUNTS, LOCK
from sseflask.errors import Failure
from sseflask.logs import request_ids
from sseflask.loop.callbacks import cooperative
from sseflask.runs.outcome import Generated, NotedFrames, Outcome, internal, too_large
from sseflask.store.run_api import RunAppend, RunKey, RunStore, size_of

log = logging.getLogger("sseflask")


@dataclass(frozen=True)
class Bounds:
    """How large runs (see `size_of`) and their store may become, and how long one may go on."""

    run_bytes: float = math.inf
    run_seconds: float = math.inf
    store_bytes: float = math.inf

    @property
    def max_run_bytes(self) -> float:
        """Bytes of one run, so that a single one can't fill the store."""
        return min(self.run_bytes, self.store_bytes / 4)


class Writer:
    """The one writer of a run, in a greenlet or thread of its own.

    Args:
        generated: not begun yet.
        alone_seconds: seconds that it goes on without viewers; infinite for ever.
        max_bytes: how large the run may become, see `size_of`; then it fails.

    Attributes:
        began: the monotonic time at which it was made.
        alone_since: the monotonic time since which no viewer is here or expected back; it may be in
            the future. ``None`` if there is a viewer.
    """

    def __init__(
        self,
        run: RunKey,
        generated: Generated,
        store: RunStore,
        alone_seconds: float,
        max_bytes: float = math.inf,
    ) -> None:
        self.alone_seconds = alone_seconds
        self.began = time.monotonic()
        self.alone_since: float | None = None
        self._run = run
        self._generated = generated
        self._store = store
        self._next = 1
        self._size = 0
        self._max_bytes = max_bytes
        self._cancelled = False
        self._done = False
        self._greenlet: Any = None
        self._request_id = request_ids.current()

    def start(self) -> None:
        """Begin; once. Never blocks."""
        if cooperative():
            import gevent

            self._greenlet = gevent.spawn(self._write)
        else:
            threading.Thread(target=self._write, name="sseflask-run", daemon=True).start()

    def cancel(self) -> None:
        """Close the generator and store nothing more. Never blocks; may be repeated.

        Without gevent it takes effect with the generator's next frames: a blocked thread can't be
        woken from outside.
        """
        if self._cancelled:
            return  # a second kill would hit the `finally` of the first
        self._cancelled = True
        if self._greenlet is not None and not self._done:
            self._greenlet.kill(block=False)

    @property
    def overdue(self) -> bool:
        """Whether it has been without viewers for longer than it may."""
        since = self.alone_since
        return since is not None and time.monotonic() >= since + self.alone_seconds

    def _write(self) -> None:
        request_ids.go_on(self._request_id)  # what is logged belongs to the request
        try:
            try:
                outcome = self._store_frames()
            except Failure as failure:
                outcome = Outcome.failed(failure)
            except Exception:
                log.exception("a run failed")
                outcome = Outcome.failed(internal())
            self._done = True
            if outcome is not None and not self._cancelled:
                ending = outcome.ending()
                self._store.append(RunAppend(self._run, self._next, [], [], self._size, ending))
                next(self._generated, None)
        finally:
            self._done = True
            # A killed greenlet keeps its stack, and that keeps this writer. Only a rare garbage
            # collection would find them, and perhaps a connection that was about to be made.
            self._greenlet = None
            self._generated.close()

    def _store_frames(self) -> Outcome | None:
        """Store what the generator gives, and return the end; ``None`` if it was cancelled."""
        generated, store, run = self._generated, self._store, self._run
        while not self._is_cancelled():
            item = next(generated)
            if isinstance(item, Outcome):
                self._check_size(self._size + item.size)
                return item
            if self._is_cancelled():  # in the meantime
                return None
            frames, notes = item if isinstance(item, NotedFrames) else (item, [b""] * len(item))
            self._size += size_of(frames)
            self._check_size(self._size)
            if self._next == 1:
                with LOCK:
                    COUNTS.first_token.add(time.monotonic() - self.began)
            first = self._next
            self._next += len(frames)
            store.wait_for_room(run)
            store.append(RunAppend(run, first, frames, notes, self._size))
        return None

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            self._generated.close()
            raise too_large(self._max_bytes)

    def _is_cancelled(self) -> bool:
        return self._cancelled
