"""Servers on which each stream takes a thread, or the only one there is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sseflask.logs.once import warn_once

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment


#: With fewer threads a few visitors with a tab each are enough to block all others.
_FEW = 16


def warn_about_threads(environ: WSGIEnvironment, response: Any) -> None:
    """Log once, with its first stream, that a server with few threads serves few streams.

    Args:
        environ: the request's.
        response: gunicorn's, if there is one.
    """
    threads = _threads(environ, response)
    if threads is None or threads >= _FEW:
        return
    many = "one thread, and an open stream takes it: meanwhile nobody else is served"
    if threads > 1:
        many = (
            f"{threads} threads, and each open stream takes one: beyond {threads} streams nobody "
            "is served"
        )
    warn_once(
        f"This server has {many}. Start it with --threads 100 or more, or gunicorn with "
        "-k sseflask.transport.worker.StreamWorker, whose streams need no thread."
    )


def _threads(environ: WSGIEnvironment, response: Any) -> int | None:
    """How many threads serve requests; ``None`` if there is no limit, or it is not known."""
    config = getattr(response, "cfg", None)
    if config is not None:
        gthread = "gthread" in config.worker_class_str.lower()
        return int(config.threads) if gthread else None
    # waitress has no documented way: this is its channel, which has the server's settings.
    channel = getattr(environ.get("waitress.client_disconnected"), "__self__", None)
    threads = getattr(getattr(channel, "adj", None), "threads", None)
    if isinstance(threads, int):
        return threads
    served = "SERVER_SOFTWARE" in environ and "gunicorn.socket" not in environ
    return 1 if served and not environ.get("wsgi.multithread") else None
