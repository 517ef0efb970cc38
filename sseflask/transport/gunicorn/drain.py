"""How a worker ends, and the streams that it serves. At SIGTERM this happens, in this order:

1. `StreamWorker.alive` is cleared, which wakes `StreamWorker.run`. gunicorn does it, also at SIGHUP
   for the old workers, and after ``max_requests``. If the arbiter has gone, `StreamWorker.notify`
   does it.
2. `ConnectionServer.stop_accepting` accepts what the kernel has queued, closes the sockets that
   listen, and a second later the connections that have sent no request
   (`ConnectionLimit.close_silent_soon`).
3. `Drain.begin` ends each stream that its client can resume, with a ``retry`` line
   (`Connection.rotate`, `DetachedStreams.drain`); one whose last event had no id runs on until an
   event has. All others run on. A stream that begins from now on is treated likewise
   (`Drain.register`). Connections that are idle after a detached stream are closed
   (`IdleConnections.drain`). ``/readyz`` says 503. Runs of other processes are inherited no more
   (`RunProcess.take_no_more`): they would be passed on again.
4. `StreamWorker._wait_until_drained` waits for requests, streams and `BackgroundWork`: the runs
   that this process writes (`RunProcess`). If nothing is left, it goes on with 7.
5. A fifth of gunicorn's ``graceful_timeout`` before its end, and at least 2 s,
   `Drain._end_the_rest` interrupts background work (`RunProcess.interrupt`, by `RunStore.leave`),
   and ends streams with an error in band (`Connection.fail`). Streams without a greenlet get the
   last events of what was interrupted. Those that are still open after that end with an error too
   (`DetachedStreams.fail_rest`), and are reset if their clients take nothing
   (`DetachedStreams.abort`). If the grace time is not more than 2 s, and with gunicorn's
   ``--reload``, all this begins at once.
6. 0.8 s before the end `StreamWorker._wait_until_drained` kills the greenlets that are
   left (`ConnectionPool.kill`), for instance of streams over TLS or through middleware that keeps
   the response. gunicorn's master began to count before the worker did, and sends SIGKILL when its
   time is over (`Arbiter.stop`).
7. `StreamWorker.run` writes the last counts (`Sharing.write`) and returns. At the exit of the
   process the stores are closed (`PerProcess.close`, by ``atexit``). Then the arbiter's hook
   ``child_exit`` frees the place of its counts (`Sharing.release`).

A SIGTERM that comes before the worker has started waits for that (`worker_start`).

Ctrl-C and SIGQUIT (`StreamWorker.handle_quit`) do the same without the grace time: `Drain.end_now`.
Under gunicorn's own gevent worker hooks call the same functions, see `plain_gevent`.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Protocol

import gevent
from gevent.event import Event as Signal

from sseflask.transport.failures import shutting_down

if TYPE_CHECKING:
    from sseflask.transport.connection import Connection
    from sseflask.transport.detached.registry import DetachedStreams


log = logging.getLogger("sseflask")

#: A fifth of the grace time, and at least 2 s, is kept for failure events and the generators'
#: `finally`.
_MARGIN_PART, _MARGIN_SECONDS = 0.2, 2.0

#: Seconds for the last events of interrupted work to come to its clients, and for a failure.
_LAST_EVENTS_SECONDS, _FAILURE_SECONDS = 0.8, 0.3


class BackgroundWork(Protocol):
    """Work of a process that belongs to no connection. The loop's thread only."""

    def take_no_more(self) -> None:
        """Take over nothing of other processes: this one is to end. Never blocks."""

    def interrupt(self) -> None:
        """End it. Never blocks."""

    def wait_until_done(self, seconds: float) -> bool:
        """Block until nothing is left, or the time is over. Returns whether nothing is left."""


class Drain:
    """The live streams of this process, and whether it is ending. The loop's thread only.

    Attributes:
        draining: whether the worker has been asked to stop.
        detached: the streams that have no greenlet; ``None`` on a worker that has none.
        background: what a worker waits for beside its connections.
    """

    def __init__(self) -> None:
        self.draining = False
        self.detached: DetachedStreams | None = None
        self.background: list[BackgroundWork] = []
        self._live: set[Connection] = set()
        self._empty = Signal()
        self._empty.set()
        self._failing = False

    def register(self, connection: Connection) -> None:
        """Take in a stream that starts; one that starts during the drain is asked to end."""
        self._live.add(connection)
        self._empty.clear()
        if self._failing:
            connection.fail(shutting_down())
        elif self.draining:
            connection.rotate()

    def unregister(self, connection: Connection) -> None:
        self._live.discard(connection)
        if not self._live:
            self._empty.set()

    def begin(self, graceful_timeout: float) -> None:
        """Ask every stream to end; those that can't be resumed, only before the worker's end."""
        if not self.draining:
            self.draining = True
            count = len(self._live) + (self.detached.streams if self.detached is not None else 0)
            if count:
                log.info("draining %d streams", count)
            for work in self.background:
                work.take_no_more()
            for connection in list(self._live):
                connection.rotate()
            if self.detached is not None:
                self.detached.drain()
        margin = max(_MARGIN_SECONDS, graceful_timeout * _MARGIN_PART)
        if graceful_timeout > margin:
            gevent.spawn_later(graceful_timeout - margin, self._end_the_rest)
        else:
            self._fail_all()
            gevent.spawn(self._end_detached)

    def _end_the_rest(self) -> None:
        self._fail_all()
        self._end_detached()

    def _end_detached(self) -> None:
        if self.detached is None:
            return
        if self.background:
            # The streams of what has just been interrupted end by themselves. What other processes
            # write goes on, and its streams do not.
            self.detached.wait_until_empty(_LAST_EVENTS_SECONDS)
        self.detached.fail_rest()
        self.detached.wait_until_empty(_FAILURE_SECONDS)
        self.detached.abort()

    def _fail_all(self) -> None:
        self._failing = True
        for work in self.background:
            work.interrupt()
        for connection in list(self._live):
            connection.fail(shutting_down())

    def end_now(self, seconds: float) -> None:
        """End every stream now, and block until none is left, for at most ``seconds``."""
        self.begin(0)
        deadline = time.monotonic() + seconds
        self._empty.wait(seconds)
        self.wait_for_rest(deadline)

    def wait_for_rest(self, deadline: float) -> bool:
        """Block, at most until the deadline. Returns whether nothing without a greenlet is left."""
        waits = [work.wait_until_done for work in self.background]
        if self.detached is not None:
            waits.append(self.detached.wait_until_empty)
        return all(wait(max(0.0, deadline - time.monotonic())) for wait in waits)


#: One for each process: a gunicorn gevent worker runs one event loop.
worker_drain = Drain()
