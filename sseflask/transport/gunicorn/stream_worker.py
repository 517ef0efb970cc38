"""The gunicorn worker class: gevent's, with streams that end properly when the worker does.

gunicorn lets workers be derived from its own. Each method here that replaces one of gunicorn's says
what that does instead. `tests/unit/transport/gunicorn/test_stream_worker.py` observes gunicorn's
methods, on the lowest and on the newest version, and fails if they do something else.

gunicorn imports this module in the arbiter, before monkey-patching: it must import nothing
that touches ssl or threading beyond what gunicorn and gevent do themselves.
"""

from __future__ import annotations

import contextlib
import gc
import math
import os
import time
from types import FrameType
from typing import TYPE_CHECKING, Any

import gevent
from gevent.event import Event as Signal
from gunicorn.workers.ggevent import GeventWorker

from sseflask.counters.counts import provide
from sseflask.counters.sharing import sharing
from sseflask.logs import request_ids
from sseflask.transport.gunicorn import worker_start
from sseflask.transport.gunicorn.plain_request import Environments
from sseflask.transport.gunicorn.plain_response import answer
from sseflask.transport.gunicorn.server_response import ErrorPageSocket, hand_over_responses

if TYPE_CHECKING:
    from sseflask.transport.gunicorn.connection_server import ConnectionServer


#: How often a worker tells the arbiter that it lives, in seconds.
_NOTIFY_SECONDS = 1.0

#: How long Ctrl-C waits for streams, in seconds; gunicorn kills 2 s after a second signal.
INTERRUPT_SECONDS = 1.5

#: What Ctrl-C leaves to ordinary requests once the streams have ended, in seconds; gunicorn's own.
_QUIT_SECONDS = 0.1

#: What is kept of the grace time to kill what is left, and for the process to exit, in seconds: at
#: its end gunicorn's master kills the worker.
_EXIT_SECONDS, _KILL_SECONDS = 0.8, 0.4

#: What an end in development leaves to generators that do not stop, in seconds.
_RELOAD_SECONDS = 2.0


class StreamWorker(GeventWorker):
    """``gunicorn -k sseflask.transport.worker.StreamWorker``: drains streams by itself."""

    _alive = True
    _quitter: gevent.Greenlet[..., None] | None = None
    _ending: Signal | None = None
    _deadline = math.inf
    _killing = False
    _environments: Environments | None = None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        sharing.take(self)  # in the arbiter, which is about to fork it
        worker_start.hold_signals_from_fork()

    # -- its process -----------------------------------------------------------------------------

    def init_signals(self) -> None:
        """Take the signals over from the arbiter, those included that came since the fork."""
        super().init_signals()
        worker_start.release_signals()

    def load_wsgi(self) -> None:
        """Load the application with the garbage collector held back."""
        worker_start.collect_less_often()
        super().load_wsgi()

    @property
    def alive(self) -> bool:
        """Cleared by everything that ends a worker; in gunicorn it is an attribute."""
        return self._alive

    @alive.setter
    def alive(self, alive: bool) -> None:
        self._alive = alive
        if not alive and self._ending is not None:
            self._ending.set()

    def notify(self) -> None:
        """Tell the arbiter that this worker lives. Without one it drains; gunicorn's own exits."""
        super(GeventWorker, self).notify()
        if self.alive and self.ppid != os.getppid():
            self.log.info("Parent changed, shutting down: %s", self)
            self.alive = False

    def run(self) -> None:
        """Serve until asked to stop, then drain: `sseflask.transport.gunicorn.drain` has the order.

        gunicorn's own looks once a second whether it is to stop, accepts connections until then,
        and counts one whose stream has no greenlet as ended.
        """
        from sseflask.transport.gunicorn.connection_server import ConnectionServer
        from sseflask.transport.gunicorn.drain import worker_drain

        self._ending = Signal()
        worker_start.prepare_process(self.cfg, self.log)
        self._environments = Environments(self.cfg)
        connections = ConnectionServer(self)
        worker_drain.detached = connections.detached
        self.wsgi = hand_over_responses(self.wsgi, connections.adopt)
        provide("leaving", lambda: not self.alive)
        sharing.begin(self)
        for begin in worker_start.on_worker_start:
            begin()
        connections.start_accepting()
        while self.alive:
            self.notify()
            self._ending.wait(_NOTIFY_SECONDS)
        connections.stop_accepting()
        # In development a file has just been saved, and its author waits for the next worker.
        grace = 0 if self.cfg.reload else self.cfg.graceful_timeout
        worker_drain.begin(grace)
        seconds = grace - min(_EXIT_SECONDS, grace / 2) if grace else _RELOAD_SECONDS
        self._wait_until_drained(connections, time.monotonic() + seconds)
        if self._quitter is not None:
            self._quitter.join()
        sharing.write()
        gc.unfreeze()

    def _wait_until_drained(self, connections: ConnectionServer, deadline: float) -> None:
        from sseflask.transport.gunicorn.drain import worker_drain

        pool = connections.pool
        while True:
            now = time.monotonic()
            pause = min(self._patience, max(0.0, deadline - now))
            if (
                pool.join(pause)
                and worker_drain.wait_for_rest(now + pause)
                and not len(pool)  # a connection may have gone on in the meantime
            ):
                return
            self.notify()
            if time.monotonic() >= min(deadline, self._deadline):
                if self._deadline == math.inf:
                    self.log.warning("Worker graceful timeout (pid:%s)", self.pid)
                self._killing = True
                pool.kill(_KILL_SECONDS)
                return

    @property
    def _patience(self) -> float:
        """Seconds to wait for the last streams before looking at the time again."""
        return _NOTIFY_SECONDS if self._quitter is None else _QUIT_SECONDS

    def handle_quit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002  # gunicorn's
        """Ctrl-C, SIGQUIT: drain without grace. gunicorn's own cuts every stream 0.1 s from now."""
        # On a terminal SIGINT comes from there, and SIGQUIT from the arbiter right behind it.
        if self._quitter is None:
            # Not in the signal handler: it may run in any greenlet, the event loop's included.
            self._quitter = gevent.spawn(self._drain_and_quit)

    def _drain_and_quit(self) -> None:
        """Let `run` come to its end soon.

        gunicorn's own calls ``sys.exit`` here. gevent then raises SystemExit in the main greenlet,
        wherever that is: if `run` has returned meanwhile, in the interpreter's own shutdown.
        """
        from sseflask.transport.gunicorn.drain import worker_drain

        self.alive = False
        worker_drain.end_now(INTERRUPT_SECONDS)
        self.cfg.worker_int(self)
        gevent.sleep(_QUIT_SECONDS)
        self._deadline = 0.0

    # -- a connection, in its greenlet -----------------------------------------------------------

    def timeout_ctx(self) -> Any:
        """What gunicorn has around the wait for a request; a connection has its own deadlines."""
        request_ids.forget()
        greenlet: Any = gevent.getcurrent()
        greenlet.connection.await_request(self.alive)
        return contextlib.nullcontext()

    def handle_http2(self, listener: Any, client: Any, *more: Any, **options: Any) -> None:
        """Serve a connection whose requests do not come one after another: without deadlines."""
        client.connection = None
        super().handle_http2(listener, client, *more, **options)

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> bool:
        """Answer one request.

        Raises:
            StopIteration: the connection has no next request. gunicorn's own takes a kill for an
                answer, and reads on.
        """
        sock.connection.begin_request(req)
        try:
            if self._environments is None or not getattr(req, "plain", False):
                super().handle_request(listener_name, req, sock, addr)
            else:
                answer(self, self._environments, listener_name, req, sock, addr)
        finally:
            sock.connection.end_request()
        if self._killing:
            raise StopIteration
        return True  # gunicorn ignores it

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Any) -> None:
        """Refuse what is no request, or say that it has failed; page and log name the same id."""
        if not request_ids.current():
            request_ids.go_on(request_ids.make())
        page: Any = ErrorPageSocket(client, request_ids.current())
        super().handle_error(req, page, addr, exc)
