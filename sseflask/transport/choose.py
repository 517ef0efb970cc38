"""Picks the fastest transport that the server, the connection and the middleware allow."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from sseflask.counters.counts import COUNTS, LOCK
from sseflask.logs.once import name_of, warn_once
from sseflask.transport.failures import worker_full
from sseflask.transport.gunicorn.server_response import KEY, ServerResponse
from sseflask.transport.portable import PortableBody
from sseflask.transport.stream import Body, EarlyError, Stream, has_header

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

#: With fewer threads a few visitors with a tab each are enough to block all others.
_FEW = 16


def transport(stream: Stream, environ: WSGIEnvironment, start_response: StartResponse) -> Body:
    """Give the body that will carry the stream; its bytes do not depend on the transport.

    Raises:
        EarlyError: there is no room for it.
    """
    server: ServerResponse | None = None
    if "gunicorn.socket" in environ:
        server = _server_response(environ, start_response)
        _warn_about_gunicorn(environ, server, start_response)
        if not begin_long(environ):
            source = stream.source
            failure = worker_full("streams") if source is None else source.refusal()
            with LOCK:
                COUNTS.streams[stream.kind].refused += 1
            raise EarlyError(failure)
        if server and _owns_socket(environ, server, stream):
            from sseflask.transport.newcomer import connection

            return connection(stream, environ, start_response, server)
    warn_about_threads(environ, server and server.response)
    return PortableBody(stream, environ, start_response)


def _server_response(
    environ: WSGIEnvironment, start_response: StartResponse
) -> ServerResponse | None:
    """gunicorn's response: from the worker, or else the owner of the method ``start_response``."""
    if KEY in environ:
        server: ServerResponse | None = environ[KEY]
        return server
    response = getattr(start_response, "__self__", None)
    return None if response is None else ServerResponse(response)


def begin_long(environ: WSGIEnvironment) -> bool:
    """Whether a long request has room: our worker keeps some of its connections for others."""
    connection: Any = getattr(environ.get("gunicorn.socket"), "connection", None)
    return connection is None or bool(connection.begin_long())


def _owns_socket(environ: WSGIEnvironment, server: ServerResponse, stream: Stream) -> bool:
    """Whether this is gunicorn's own response on a plain gevent socket, in its own thread."""
    gevent_socket = sys.modules.get("gevent.socket")
    return (
        gevent_socket is not None
        and isinstance(environ["gunicorn.socket"], gevent_socket.socket)
        and not hasattr(type(environ["gunicorn.socket"]), "do_handshake")
        and server.is_http1
        and environ["gunicorn.socket"].hub is sys.modules["gevent"].get_hub()
        and not has_header(stream.headers, "content-length")
    )


def _warn_about_gunicorn(
    environ: WSGIEnvironment, server: ServerResponse | None, start_response: StartResponse
) -> None:
    if server and type(server.response).__module__ == "gunicorn.http2.response":
        warn_once(
            "gunicorn serves the HTTP/2 streams of one connection one after the other: a second "
            "event stream of the same browser gets nothing until the first has ended. Let a "
            "proxy in front speak HTTP/2, and gunicorn HTTP/1.1."
        )
    elif not environ.get("wsgi.multithread", False):
        warn_once(
            "gunicorn's sync worker serves one stream at a time and is killed after `timeout` "
            "seconds. Start gunicorn with -k sseflask.transport.worker.StreamWorker."
        )
    elif KEY not in environ and server is None:
        warn_once(
            f"{name_of(start_response)} wraps start_response, so event streams can't find their "
            "connection: clients that leave are noticed late, and streams are cut when the worker "
            "stops. Start gunicorn with -k sseflask.transport.worker.StreamWorker, or with "
            "-c python:sseflask.gunicorn_conf."
        )


def warn_about_threads(environ: WSGIEnvironment, response: Any) -> None:
    """Log once, with its first stream, that a server with few threads serves few streams."""
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
