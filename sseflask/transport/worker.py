"""The gunicorn worker class: gevent's, with streams that end properly when the worker does.

gunicorn imports this module in the arbiter, before monkey-patching: it must import nothing
that touches ssl or threading beyond what gunicorn and gevent do themselves.
"""

from __future__ import annotations

import gc
import time
from functools import partial
from types import FrameType
from typing import Any

import gevent
from gevent.event import Event as Signal
from gevent.pool import Pool
from gevent.server import StreamServer
from gunicorn.sock import ssl_context
from gunicorn.workers.ggevent import GeventWorker

__all__ = ["StreamWorker"]

#: How often a worker tells the arbiter that it lives, in seconds.
_NOTIFY_SECONDS = 1.0


#: Python's (before 3.13, since), and ours: objects made until the youngest generation is looked at,
#: and how often that happens before the next older one is; the oldest some millions of them apart.
_DEFAULT_THRESHOLDS, _THRESHOLD = ((700, 10, 10), (2000, 10, 10)), (10_000, 10, 100)


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
    if gc.get_threshold() in _DEFAULT_THRESHOLDS:  # not where the application has set its own
        gc.set_threshold(*_THRESHOLD)


class StreamWorker(GeventWorker):
    """``gunicorn -k sseflask.transport.worker.StreamWorker``: drains streams by itself."""

    _alive = True
    _quitting = False
    _ending: Signal | None = None

    @property
    def alive(self) -> bool:
        """Cleared by whatever ends a worker: signals, ``max_requests``, a lost arbiter."""
        return self._alive

    @alive.setter
    def alive(self, alive: bool) -> None:
        self._alive = alive
        if not alive and self._ending is not None:
            self._ending.set()

    def run(self) -> None:
        """Serve until told to stop, then drain.

        In place of gunicorn's own, which looks once a second whether it is to stop, and accepts
        connections until then.
        """
        from sseflask.transport import drain

        self._ending = Signal()
        _calm_collector()
        pools = [Pool(self.worker_connections) for _ in self.sockets]
        servers = [self._serve(*pair) for pair in zip(self.sockets, pools, strict=True)]
        while self.alive:
            self.notify()
            self._ending.wait(_NOTIFY_SECONDS)
        for server in servers:
            server.close()
        drain.begin(self.cfg.graceful_timeout)
        deadline = time.monotonic() + self.cfg.graceful_timeout
        for pool in pools:
            while not pool.join(_NOTIFY_SECONDS):
                self.notify()
                if time.monotonic() >= deadline:
                    self.log.warning("Worker graceful timeout (pid:%s)", self.pid)
                    pool.kill(timeout=1)
                    break

    def _serve(self, listener: Any, pool: Pool) -> StreamServer:
        tls: dict[str, Any] = {"ssl_context": ssl_context(self.cfg)} if self.cfg.is_ssl else {}
        listener.setblocking(True)
        name: Any = _ListenerName(listener)
        handle = partial(self.handle, name)
        server: StreamServer = StreamServer(listener, handle=handle, spawn=pool, **tls)
        if self.cfg.workers > 1:
            server.max_accept = 1  # so that one worker does not take them all
        server.start()
        return server

    def handle_quit(self, sig: int, frame: FrameType | None) -> None:
        """Ctrl-C: gunicorn would cut every stream 0.1 s from now."""
        # On a terminal SIGINT comes from there, and SIGQUIT from the arbiter right behind it.
        if not self._quitting:
            self._quitting = True
            # Not in the signal handler: it may run in any greenlet, the hub's included.
            gevent.spawn(self._drain_and_quit, sig, frame)

    def _drain_and_quit(self, sig: int, frame: FrameType | None) -> None:
        from sseflask.transport import drain

        drain.interrupt(self)
        super().handle_quit(sig, frame)
