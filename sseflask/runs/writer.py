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
from sseflask.loop import native
from sseflask.loop.callbacks import cooperative
from sseflask.runs.outcome import Generated, NotedFrames, Outcome, internal, too_large
from sseflask.store.run_api import Run, RunAppend, RunStore

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


@dataclass(frozen=True)
class Terms:
    """How long one run goes on.

    Args:
        alone_seconds: seconds without viewers; infinite for ever.
        bytes: how large it may become, see `size_of`; then it fails.
        seconds: from its beginning; then it fails.
    """

    alone_seconds: float = math.inf
    bytes: float = math.inf
    seconds: float = math.inf


class Writer:
    """The one writer of a run, in a greenlet or thread of its own.

    The generator's frames come from this greenlet, and others may `write` too: all frames are
    stored in the order in which they come.

    Args:
        run: as it is stored: frames may have been written by another process before.
        size: what it takes already, see `size_of`.

    Attributes:
        began: the monotonic time at which it was made.
        alone_since: the monotonic time since which no viewer is here or expected back; it may be in
            the future. ``None`` if there is a viewer.
    """

    def __init__(self, run: Run, store: RunStore, terms: Terms, *, size: int = 0) -> None:
        self.run = run
        self.terms = terms
        self.began = time.monotonic()
        self.alone_since: float | None = None
        self._store = store
        self._lock = native.lock()
        self._last = run.last
        self._size = size
        self._cancelled = False
        self._done = False
        self._told = False  # the generator knows that the run has ended, or has said so
        self._runner: Any = None  # the greenlet or thread, until the generator is closed
        self._request_id = request_ids.current()

    def start(self, generated: Generated) -> None:
        """Begin with a generator that has not begun; once. Never blocks."""
        if cooperative():
            import gevent

            self._runner = gevent.spawn(self._advance, generated)
        else:
            self._runner = threading.Thread(
                target=self._advance, args=(generated,), name="sseflask-run", daemon=True
            )
            self._runner.start()

    def join(self, seconds: float) -> None:
        """Block until the generator is closed, at most some seconds."""
        runner = self._runner
        if runner is not None:
            runner.join(seconds)

    def cancel(self) -> None:
        """Close the generator and store nothing more. Never blocks; may be repeated.

        Without gevent it takes effect with the generator's next frames: a blocked thread can't be
        woken from outside.
        """
        if self._cancelled:
            return  # a second kill would hit the `finally` of the first
        self._cancelled = True
        if self._runner is not None and not self._told and cooperative():
            self._runner.kill(block=False)

    @property
    def ended(self) -> bool:
        """Whether nothing more is stored."""
        return self._cancelled or self._done

    @property
    def overdue(self) -> bool:
        """Whether it has been without viewers for longer than it may."""
        since = self.alone_since
        return since is not None and time.monotonic() >= since + self.terms.alone_seconds

    def write(self, frames: list[bytes], notes: list[bytes] | None = None) -> bool:
        """Store the next frames. Any greenlet or thread; blocks while much waits to be stored.

        Returns whether the run still goes on; if not, nothing is stored.

        Raises:
            Failure: the run would be too large: it has been ended.
        """
        if not self._cancelled:
            self._store.wait_for_room(self.run.key)
        with self._lock:
            if self._cancelled or self._done:
                return False
            if not frames:
                return True
            notes = notes or [b""] * len(frames)
            append = RunAppend(self.run.key, self._last + 1, frames, notes, self._size)
            append.size += append.added
            if append.size > self.terms.bytes:
                failure = too_large(self.terms.bytes)
                self._end(Outcome.failed(failure))
                self._told = self._is_own_greenlet()  # else the end, once stored, wakes it
                raise failure
            if not self._last:
                with LOCK:
                    COUNTS.first_token.add(time.monotonic() - self.began)
            self._last, self._size = append.last, append.size
            self._store.append(append)
            return True

    def _end(self, outcome: Outcome) -> None:
        """Store the end; the lock is held."""
        self._done = True
        ending = outcome.ending()
        append = RunAppend(self.run.key, self._last + 1, [], [], self._size, ending)
        self._store.append(append)

    def _advance(self, generated: Generated) -> None:
        request_ids.go_on(self._request_id)  # what is logged belongs to the request
        try:
            try:
                outcome = self._store_frames(generated)
            except Failure as failure:
                outcome = Outcome.failed(failure)
            except BaseException as error:
                if self.ended and not isinstance(error, Exception):
                    raise  # it was cancelled
                log.exception("a run failed")
                outcome = Outcome.failed(internal())
            if outcome is not None and self._may_end(outcome):
                next(generated, None)
        finally:
            self._done = self._told = True
            _close(generated)
            # A killed greenlet keeps its stack, and that keeps this writer. Only a rare garbage
            # collection would find them, and perhaps a connection that was about to be made.
            self._runner = None

    def _may_end(self, outcome: Outcome) -> bool:
        """Store the end, unless the run has ended otherwise."""
        with self._lock:
            if self._cancelled or self._done:
                return False
            self._end(outcome)
            self._told = True
            return True

    def _store_frames(self, generated: Generated) -> Outcome | None:
        """Store what the generator gives, and return the end; ``None`` if it was cancelled."""
        while not self._is_cancelled():
            item = next(generated)
            if isinstance(item, Outcome):
                if self._size + item.size > self.terms.bytes:
                    generated.close()
                    raise too_large(self.terms.bytes)
                return item
            frames, notes = item if isinstance(item, NotedFrames) else (item, None)
            if not self.write(frames, notes):
                return None
        return None

    def _is_cancelled(self) -> bool:
        return self._cancelled

    def _is_own_greenlet(self) -> bool:
        if not cooperative():
            return False
        import gevent

        return gevent.getcurrent() is self._runner


def _close(generated: Generated) -> None:
    try:
        generated.close()
    except Failure:
        pass  # reported by the generator itself
    except Exception:
        log.exception("a run's generator failed when it was closed")
