"""What gunicorn's own gevent worker (``-k gevent``) gets by the hooks of `sseflask.gunicorn_conf`.

Our worker class needs none of it. Each function does nothing for a worker of any other class.
"""

from __future__ import annotations

import threading
from typing import Any

import gevent
from gevent.event import Event as Signal
from gunicorn.workers.ggevent import GeventWorker

from sseflask.logs import request_ids
from sseflask.transport.gunicorn.connection_pool import ConnectionLimit
from sseflask.transport.gunicorn.drain import worker_drain
from sseflask.transport.gunicorn.server_response import hand_over_responses
from sseflask.transport.gunicorn.stream_worker import INTERRUPT_SECONDS, StreamWorker

_POLL_SECONDS = 0.1

#: Whether `interrupt` has been called, and the greenlet that is to exit the process after it.
_interrupted = False
_interrupter: Any = None


def _is_plain(worker: object) -> bool:
    return isinstance(worker, GeventWorker) and not isinstance(worker, StreamWorker)


def prepare(worker: Any) -> None:
    """Let streams find their connection, and drain them, for the ``post_worker_init`` hook."""
    if _is_plain(worker):
        worker.wsgi = hand_over_responses(worker.wsgi)
        gevent.spawn(_drain_at_end, worker)
        _count_connections(worker)
        _leave_between_requests(worker)


def _drain_at_end(worker: Any) -> None:
    # gunicorn has no hook for this, and looks at `alive` itself.
    while worker.alive:
        gevent.sleep(_POLL_SECONDS)
    worker_drain.begin(float(worker.cfg.graceful_timeout))


def _count_connections(worker: Any) -> None:
    """Log when the worker is full; the metrics show the connections."""
    handle, limit = worker.handle, ConnectionLimit(worker.worker_connections)
    limit.provide_gauges()

    def counted(*arguments: Any) -> None:
        limit.add()
        limit.make_room()
        try:
            handle(*arguments)
        finally:
            limit.remove()

    worker.handle = counted


def _leave_between_requests(worker: Any) -> None:
    """Leave the request before gunicorn waits for the next: what it logs then belongs to none."""
    timeout_ctx = worker.timeout_ctx

    def wait_for_request() -> object:
        request_ids.forget()
        return timeout_ctx()

    worker.timeout_ctx = wait_for_request


def interrupt(worker: Any) -> None:
    """End all streams now, for the ``worker_int`` hook (Ctrl-C, SIGQUIT).

    Blocks until they have ended, at most 1.5 s. Called again it blocks for ever: the first caller
    is about to exit the process, and a second exit would only print a traceback into the first.
    """
    global _interrupted, _interrupter
    if not _is_plain(worker):
        return
    worker.alive = False
    if _interrupted:
        Signal().wait()
    _interrupted = True
    # gunicorn's reloader calls it too, in a thread: a SystemExit there ends the thread alone.
    if threading.current_thread() is not worker.reloader:
        _interrupter = gevent.getcurrent()
    worker_drain.end_now(INTERRUPT_SECONDS)


def exit_once(worker: Any) -> None:
    """The worker is exiting: keep Ctrl-C from exiting it again, for the ``worker_exit`` hook.

    At Ctrl-C gunicorn calls ``sys.exit`` in a greenlet of its own, after `interrupt`. If the worker
    has come to its end by itself meanwhile, gevent raises that SystemExit in the interpreter's
    shutdown, which prints a traceback.
    """
    global _interrupted
    if _is_plain(worker):
        _interrupted = True
        if _interrupter is not None:
            _interrupter.kill()
