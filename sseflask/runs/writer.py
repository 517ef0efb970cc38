"""Runs an upstream's request, and hands on what it streams; nobody has to be there to read it."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any

from sseflask.completions.outcome import Outcome
from sseflask.completions.usage import size_of
from sseflask.counters.counts import COUNTS, LOCK
from sseflask.errors import Failure
from sseflask.logs import request_ids
from sseflask.loop.callbacks import cooperative
from sseflask.runs.limits import too_large
from sseflask.store.run_api import Append

__all__ = ["Answer", "Writer"]

log = logging.getLogger("sseflask")

Answer = Generator[list[bytes] | Outcome, None, None]
"""Gives frames as they come, and then how it ended. Who wants more has it deal with what is left of
the upstream's response, which may take a moment; closing it cancels the upstream."""


class Writer:
    """The one writer of a run, in a greenlet or thread of its own.

    Args:
        run: the run's number.
        answer: not begun yet.
        store: gets everything in order; may block.
        grace: seconds that it goes on without viewers; infinite for ever.
        most_bytes: what may come of it, with `FRAME_BYTES` for each frame; then it fails.

    Attributes:
        began: the monotonic time at which it was made.
        alone_since: the monotonic time since when nobody has been there or expected back, which may
            be to come; or ``None``.
    """

    def __init__(
        self,
        run: int,
        answer: Answer,
        store: Callable[[Append], None],
        grace: float,
        most_bytes: float = math.inf,
    ) -> None:
        self.grace = grace
        self.began = time.monotonic()
        self.alone_since: float | None = None
        self._run = run
        self._answer = answer
        self._store = store
        self._next = 1
        self._most_bytes = self._left = most_bytes
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
        """Close the upstream's connection and store nothing more. Never blocks; may be repeated.

        Without gevent it takes effect with the upstream's next frame: a blocked thread can't be
        woken from outside.
        """
        if self._cancelled:
            return  # a second kill would hit the `finally` of the first
        self._cancelled = True
        if self._greenlet is not None and not self._done:
            self._greenlet.kill(block=False)

    @property
    def overdue(self) -> bool:
        """Whether it has been alone for longer than it may."""
        since = self.alone_since
        return since is not None and time.monotonic() >= since + self.grace

    def _write(self) -> None:
        request_ids.go_on(self._request_id)  # what is logged belongs to who has asked
        try:
            outcome = self._relay()
            self._done = True
            if outcome is not None and not self._cancelled:
                self._store(Append(self._run, self._next, [], outcome))
                next(self._answer, None)
        finally:
            self._done = True
            # A killed greenlet keeps its frames, and they keep this: garbage only a rare collection
            # would find, with a connection in it that was about to be made.
            self._greenlet = None
            self._answer.close()

    def _relay(self) -> Outcome | None:
        """Store what comes, and give the end; ``None`` where it was cancelled."""
        try:
            return self._store_frames()
        except Failure as failure:
            return Outcome.failed(failure)
        except Exception:
            log.exception("a completion failed")
            return Outcome.failed(
                Failure("The completion failed on the server.", code="internal_error")
            )

    def _store_frames(self) -> Outcome | None:
        answer, store, run = self._answer, self._store, self._run
        while not self._is_cancelled():
            came = next(answer)
            if isinstance(came, Outcome):
                self._take_room(() if came.frame is None else (came.frame,))
                return came
            if self._is_cancelled():  # in the meantime
                return None
            self._take_room(came)
            if self._next == 1:
                with LOCK:
                    COUNTS.first_token.add(time.monotonic() - self.began)
            first = self._next
            self._next += len(came)
            store(Append(run, first, came))
        return None

    def _take_room(self, frames: Sequence[bytes]) -> None:
        self._left -= size_of(frames)
        if self._left < 0:
            self._answer.close()
            raise too_large(self._most_bytes)

    def _is_cancelled(self) -> bool:
        return self._cancelled
