"""Ends the streams of a worker that is going, each in the way that suits it.

A stream that its client can resume ends at once; any other runs on until shortly before
gunicorn would kill the worker and is then told so in band.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol

import gevent
from gevent.event import Event as Signal

from sseflask.transport.failures import shutting_down

if TYPE_CHECKING:
    from gunicorn.workers.base import Worker

    from sseflask.transport.connection import Connection
    from sseflask.transport.detached.registry import DetachedStreams

log = logging.getLogger("sseflask")

#: How long Ctrl-C waits for streams, in seconds; gunicorn kills 2 s after a second signal.
_INTERRUPT_SECONDS = 1.5

#: What is left of the grace time for telling clients and running their `finally`, in seconds.
_MARGIN_SECONDS = 2.0

_POLL_SECONDS = 0.1

#: Seconds for the last words of interrupted work to come to its clients.
_WORDS_SECONDS = 1.0


class Work(Protocol):
    """What goes on in a process without a connection of its own. The hub's thread only."""

    def interrupt(self) -> None:
        """End it. Never blocks."""

    def wait_until_done(self, seconds: float) -> bool:
        """Block until nothing is left, and say whether that is so."""


class Drain:
    """The live streams of this process, and whether it is on its way out.

    Belongs to the hub's thread.

    Attributes:
        detached: the streams that have no greenlet, on a worker that has such.
        work: what a worker waits for beside its connections.
    """

    def __init__(self) -> None:
        self.detached: DetachedStreams | None = None
        self.work: list[Work] = []
        self._live: set[Connection] = set()
        self._empty = Signal()
        self._empty.set()
        self._draining = False
        self._failing = False
        self._interrupted = False
        self._interrupter: Any = None

    @property
    def draining(self) -> bool:
        """Whether the worker has been told to stop."""
        return self._draining

    def register(self, connection: Connection) -> None:
        """Take in a stream that starts; one that starts during the drain is asked to end."""
        self._live.add(connection)
        self._empty.clear()
        if self._failing:
            connection.fail(shutting_down())
        elif self._draining:
            connection.rotate()

    def unregister(self, connection: Connection) -> None:
        """Forget a stream that has ended."""
        self._live.discard(connection)
        if not self._live:
            self._empty.set()

    def begin(self, grace: float) -> None:
        """Ask every stream to end.

        Args:
            grace: seconds after which streams that could not be rotated fail in band.
        """
        if not self._draining:
            self._draining = True
            count = len(self._live) + (len(self.detached) if self.detached else 0)
            if count:
                log.info("draining %d streams", count)
            for connection in list(self._live):
                connection.rotate()
            if self.detached is not None:
                self.detached.drain()
        if grace > 0:
            gevent.spawn_later(grace, self._last_call)
        else:
            self._fail_all()

    def _last_call(self) -> None:
        self._fail_all()
        if self.detached is not None and self.work:
            # The streams of what has just been interrupted end by themselves.
            self.detached.wait_until_empty(_WORDS_SECONDS)
        if self.detached is not None:
            self.detached.abort()  # those whose clients take nothing

    def _fail_all(self) -> None:
        self._failing = True
        for work in self.work:
            work.interrupt()
        for connection in list(self._live):
            connection.fail(shutting_down())

    def interrupt(self, timeout: float, *, quits: bool = True) -> None:
        """End every stream now, and block until none is left, at most ``timeout`` seconds.

        Called again it blocks for ever: the first caller is about to exit the process, and a
        second exit would only print a traceback into the first.

        Args:
            timeout: see above.
            quits: the caller ends the process afterwards, unless `leave_quietly` comes first.
        """
        if self._interrupted:
            Signal().wait()
        self._interrupted = True
        if quits:
            self._interrupter = gevent.getcurrent()
        self.begin(0)
        deadline = time.monotonic() + timeout
        self._empty.wait(timeout)
        self.wait_for_rest(deadline)

    def leave_quietly(self) -> None:
        """The process is about to exit: nobody else ends it any more, see `quit_quietly`."""
        self._interrupted = True
        if self._interrupter is not None:
            self._interrupter.kill()

    def wait_for_rest(self, deadline: float) -> bool:
        """Block until what has no greenlet is done, and say whether it is.

        Args:
            deadline: the monotonic time until which to wait at most.
        """
        waits = [work.wait_until_done for work in self.work]
        if self.detached is not None:
            waits.append(self.detached.wait_until_empty)
        return all(wait(max(0.0, deadline - time.monotonic())) for wait in waits)


#: One per process: a gunicorn gevent worker runs one hub.
streams = Drain()


def begin(graceful_timeout: float) -> None:
    """Ask every stream of this process to end, since its worker was told to. Never blocks.

    Args:
        graceful_timeout: gunicorn's; seconds until it kills the worker.
    """
    streams.begin(max(0.0, graceful_timeout - max(_MARGIN_SECONDS, graceful_timeout / 5)))


def install(worker: Worker) -> None:
    """Begin the drain when gunicorn's own gevent worker is told to stop.

    For the ``post_worker_init`` hook. Covers SIGTERM, SIGHUP's old workers and ``max_requests``:
    all of them clear ``alive``. Our own worker class needs no hook.

    Args:
        worker: a worker of any class; only gevent ones have streams to drain.
    """
    # Not imported at the top: the worker's module must stay importable from the arbiter.
    from gunicorn.workers.ggevent import GeventWorker

    if isinstance(worker, GeventWorker):
        gevent.spawn(_watch, worker)


def _watch(worker: Worker) -> None:
    # gunicorn has no event for this, it polls `alive` itself.
    while worker.alive:
        gevent.sleep(_POLL_SECONDS)
    begin(float(worker.cfg.graceful_timeout))


def quit_quietly(worker: Worker) -> None:
    """Have a worker that is exiting exit once, for gunicorn's ``worker_exit`` hook.

    At Ctrl-C gunicorn calls ``sys.exit`` in a greenlet of its own, after `interrupt`. If the worker
    has come to its end by itself meanwhile, gevent raises that SystemExit in the interpreter's
    shutdown, which prints a traceback. Our own worker class needs no hook.
    """
    from gunicorn.workers.ggevent import GeventWorker

    if isinstance(worker, GeventWorker):
        streams.leave_quietly()


def interrupt(worker: Worker) -> None:
    """End all streams now, for gunicorn's ``worker_int`` hook (Ctrl-C, SIGQUIT).

    Our own worker class calls it itself. Blocks until they have ended, at most 1.5 s.
    """
    from gunicorn.workers.ggevent import GeventWorker

    if isinstance(worker, GeventWorker):
        worker.alive = False
        # gunicorn's reloader calls it too, in a thread: a SystemExit there ends the thread alone.
        reloads = threading.current_thread() is worker.reloader
        streams.interrupt(_INTERRUPT_SECONDS, quits=not reloads)
