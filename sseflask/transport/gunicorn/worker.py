"""The gunicorn worker class: gevent's, with streams that end properly when the worker does.

gunicorn imports this module in the arbiter, before monkey-patching: it must import nothing
that touches ssl or threading beyond what gunicorn and gevent do themselves.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import math
import os
import sys
import time
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any

import gevent
from gevent.event import Event as Signal
from gevent.pool import Pool
from gevent.server import StreamServer
from gunicorn.sock import ssl_context
from gunicorn.workers.ggevent import GeventWorker

from sseflask.counters.gauges import provide
from sseflask.counters.sharing import sharing
from sseflask.logs import request_ids
from sseflask.logs.masking import MaskingFilter, guard
from sseflask.transport.gunicorn import access_log as late_line
from sseflask.transport.gunicorn import startup_signals as birth
from sseflask.transport.gunicorn.error_page import ErrorPage
from sseflask.transport.gunicorn.slots import Slots

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from sseflask.transport.detached.group import DetachedStream
    from sseflask.transport.detached.registry import DetachedStreams
    from sseflask.transport.gunicorn.response import ServerResponse

__all__ = ["StreamWorker"]

#: How often a worker tells the arbiter that it lives, in seconds.
_NOTIFY_SECONDS = 1.0

#: Python's (before 3.13, since), and ours: objects made until the youngest generation is looked at,
#: and how often that happens before the next older one is; the oldest some millions of them apart.
_DEFAULT_THRESHOLDS, _THRESHOLD = ((700, 10, 10), (2000, 10, 10)), (10_000, 10, 100)

#: Seconds for which the loop may go on when a native thread wants the interpreter. With Python's
#: own 5 ms an event that is to be stored waits so long on a busy worker, once more when it is.
_SWITCH_SECONDS = 0.001

#: What Ctrl-C leaves to ordinary requests once the streams have ended, in seconds; gunicorn's own.
_QUIT_SECONDS = 0.1

#: What an end in development leaves to generators that do not stop, in seconds.
_RELOAD_SECONDS = 2.0

#: Connections accepted in one turn of the loop; gevent's own 100 would take it 60 ms and more.
_ACCEPT = 4


class _ListenerName:
    """All that gunicorn asks of a listener to serve a connection; outlives the listener."""

    def __init__(self, listener: Any) -> None:
        self._name = listener.getsockname()

    def getsockname(self) -> Any:
        return self._name


def _calm_collector() -> None:
    """Keep the garbage collector from stopping all streams to look at them.

    Every stream is some hundred objects that live as long as it does. By its own rules the
    collector goes through all of them, and the application's code, each time they have grown by a
    quarter: measured at 1,000 streams, two pauses of 50 and 77 ms while they were opened.
    """
    gc.collect()
    gc.freeze()


def _collect_less_often() -> None:
    """Before the application is loaded: that goes faster, and what it sets itself stays."""
    if gc.get_threshold() in _DEFAULT_THRESHOLDS:
        gc.set_threshold(*_THRESHOLD)


def _believe_no_client(cfg: Any) -> None:
    """Have gunicorn take the path of a request from its first line alone.

    By default it also believes SCRIPT_NAME and PATH_INFO headers that come from 127.0.0.1, and
    proxies there pass those of their clients on: such a request gets past what the proxy forbids.
    What the operator has set stays.
    """
    if cfg.forwarder_headers == cfg.settings["forwarder_headers"].default.split(","):
        cfg.set("forwarder_headers", "")


def _guard_logs(log: Any) -> None:
    """Keep clients from forging lines of a log, also without our configuration or `SSE`."""
    guard(logging.getLogger("sseflask"))
    for logger in (log.error_log, log.access_log):
        if not any(isinstance(each, MaskingFilter) for each in logger.filters):
            logger.addFilter(MaskingFilter())


class StreamWorker(GeventWorker):
    """``gunicorn -k sseflask.transport.worker.StreamWorker``: drains streams by itself."""

    _alive = True
    _quitter: gevent.Greenlet[..., None] | None = None
    _ending: Signal | None = None
    _slots: Slots
    _deadline = math.inf
    _killing = False
    _detached: DetachedStreams

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        sharing.take(self)  # in the arbiter, which is about to fork it
        birth.expect()

    def init_signals(self) -> None:
        """Take the signals over from the arbiter, those included that came since the fork."""
        super().init_signals()
        birth.release()

    @property
    def alive(self) -> bool:
        """Cleared by whatever ends a worker: signals, ``max_requests``, a lost arbiter."""
        return self._alive

    @alive.setter
    def alive(self, alive: bool) -> None:
        self._alive = alive
        if not alive and self._ending is not None:
            self._ending.set()

    def notify(self) -> None:
        """Tell the arbiter that this worker lives; without an arbiter it drains.

        gunicorn's own would end the process at once.
        """
        super(GeventWorker, self).notify()
        if self.alive and self.ppid != os.getppid():
            self.log.info("Parent changed, shutting down: %s", self)
            self.alive = False

    def run(self) -> None:
        """Serve until told to stop, then drain.

        In place of gunicorn's own, which looks once a second whether it is to stop, and accepts
        connections until then.
        """
        from sseflask.transport.detached.registry import DetachedStreams
        from sseflask.transport.gunicorn import drain
        from sseflask.transport.gunicorn import worker_start as start

        self._ending = Signal()
        _believe_no_client(self.cfg)
        _guard_logs(self.log)
        _calm_collector()
        sys.setswitchinterval(min(sys.getswitchinterval(), _SWITCH_SECONDS))
        pool = self._slots = Slots(self.worker_connections)
        detached = self._detached = drain.streams.detached = DetachedStreams.current()
        detached.table.on_end = self._log_end
        detached.table.on_close = pool.give_back
        detached.table.idle.seconds = self.cfg.keepalive
        detached.table.idle.go_on = self._go_on
        pool.places.detached = detached.count
        pool.places.close_idle = detached.table.idle.close_some
        provide("connections", lambda: self.worker_connections - pool.free_count())
        provide("most_connections", lambda: self.worker_connections)
        provide("leaving", lambda: not self.alive)
        sharing.begin(self)
        for begin in start.on_worker_start:
            begin()
        servers = [self._serve(listener, pool) for listener in self.sockets]
        while self.alive:
            self.notify()
            self._ending.wait(_NOTIFY_SECONDS)
        for server in servers:
            server.close()
        pool.places.close()
        # Whoever has just saved a file waits for the worker that has it.
        grace = 0 if self.cfg.reload else self.cfg.graceful_timeout
        drain.begin(grace)
        deadline = time.monotonic() + (grace or _RELOAD_SECONDS)
        while not (
            pool.join(self._patience)
            and drain.streams.wait_for_rest(time.monotonic() + self._patience)
            and not len(pool)  # a connection may have gone on in the meantime
        ):
            self.notify()
            if time.monotonic() >= min(deadline, self._deadline):
                if self._deadline == math.inf:
                    self.log.warning("Worker graceful timeout (pid:%s)", self.pid)
                self._killing = True
                pool.kill(timeout=1)
                break
        if self._quitter is not None:
            self._quitter.join()
        sharing.write()
        gc.unfreeze()

    @property
    def _patience(self) -> float:
        """Seconds to wait for the last streams before looking at the time again."""
        return _NOTIFY_SECONDS if self._quitter is None else _QUIT_SECONDS

    def _serve(self, listener: Any, pool: Pool) -> StreamServer:
        from sseflask.transport.gunicorn.client_socket import Listener, tls_context

        listener.setblocking(True)
        name: Any = _ListenerName(listener)
        handle: Any = partial(self._handle_client, name)
        if self.cfg.is_ssl:
            handle = partial(self._handle_tls, name, tls_context(ssl_context(self.cfg)))
        server: StreamServer = Listener(listener, handle=handle, spawn=pool)
        # One at a time, so that one worker does not take them all. And a few at a time where it is
        # alone: who is connected waits for the requests of all that are accepted in one turn.
        server.max_accept = 1 if self.cfg.workers > 1 else _ACCEPT
        server.start()
        return server

    def _handle_tls(self, name: Any, context: Any, client: Any, address: Any) -> None:
        """Shake hands, in the time that a request's head has as well, then serve the client."""
        from sseflask.transport.gunicorn.client_socket import shake_hands

        secured = shake_hands(context, client, self._slots.places)
        if secured is not None:
            self._handle_client(name, secured, address)

    def _handle_client(self, name: Any, client: Any, address: Any, unread: bytes = b"") -> None:
        from sseflask.transport.gunicorn.client_deadlines import Visit

        visit = Visit(client, self._slots.places, self.cfg.keepalive, unread)
        greenlet: Any = gevent.getcurrent()
        client.visit = greenlet.visit = visit
        visit.listener = name
        try:
            self.handle(name, client, address)
        finally:
            visit.close()

    def _go_on(self, descriptor: int, name: Any, unread: bytes) -> None:
        """Serve the next request of a connection that has had no greenlet."""
        from sseflask.transport.gunicorn.client_socket import ClientSocket

        client = ClientSocket(fileno=descriptor)
        try:
            address = client.getpeername()
        except OSError:  # the client has gone
            client.close()
            self._slots.give_back()
        else:
            self._slots.take_back(self._handle_client, name, client, address, unread)

    def timeout_ctx(self) -> Any:
        """What gunicorn has around the wait for a request; the visit has its own deadlines."""
        request_ids.leave()
        visit = getattr(gevent.getcurrent(), "visit", None)
        if visit is None:
            return super().timeout_ctx()
        visit.await_request(self.alive)
        return contextlib.nullcontext()

    def handle_http2(self, listener: Any, client: Any, *more: Any, **options: Any) -> None:
        """Serve a connection whose requests are not one after another."""
        client.visit = None
        super().handle_http2(listener, client, *more, **options)

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> bool:
        """Answer one request."""
        visit = sock.visit
        visit.serve(req)
        try:
            goes_on = bool(super().handle_request(listener_name, req, sock, addr))
        finally:
            visit.served()
        if self._killing:
            raise StopIteration  # gunicorn's own takes a kill for an answer, and reads on
        return goes_on

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Any) -> None:
        """Refuse what is no request, or say that it has failed; the log names the same id."""
        if not request_ids.current():
            request_ids.go_on(request_ids.make())
        page: Any = ErrorPage(client, request_ids.current())
        super().handle_error(req, page, addr, exc)

    def load_wsgi(self) -> None:
        """Load the application, and have it called with what streams need of gunicorn."""
        from sseflask.transport.gunicorn.response import hand_over_responses

        _collect_less_often()
        super().load_wsgi()
        self.wsgi = hand_over_responses(self.wsgi, self._adopt)

    def _adopt(
        self,
        member: DetachedStream,
        ends_at: float,
        server: ServerResponse,
        environ: WSGIEnvironment,
    ) -> None:
        """Go on with a stream whose greenlet is about to end."""
        self._slots.keep()
        self._detached.adopt(member, ends_at)
        if not server.returned:  # otherwise gunicorn logs the request
            member.line = late_line.begin(self.log, server.response, environ)

    def _log_end(self, member: DetachedStream, sent: int) -> None:
        if member.line is not None:
            late_line.end(self.log, member.line, time.monotonic() - member.began, sent)

    def handle_quit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002  # gunicorn's
        """Ctrl-C: gunicorn would cut every stream 0.1 s from now."""
        # On a terminal SIGINT comes from there, and SIGQUIT from the arbiter right behind it.
        if self._quitter is None:
            # Not in the signal handler: it may run in any greenlet, the hub's included.
            self._quitter = gevent.spawn(self._drain_and_quit)

    def _drain_and_quit(self) -> None:
        """Let `run` come to its end soon.

        gunicorn's own calls ``sys.exit`` here. gevent then raises SystemExit in the main greenlet,
        wherever that is: if `run` has returned meanwhile, in the interpreter's own shutdown.
        """
        from sseflask.transport.gunicorn import drain

        drain.interrupt(self)
        self.cfg.worker_int(self)
        gevent.sleep(_QUIT_SECONDS)
        self._deadline = 0.0
