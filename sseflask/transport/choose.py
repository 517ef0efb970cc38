"""Picks the fastest transport that the server, the connection and the middleware allow."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

from sseflask.transport.portable import InlineBody, ThreadedBody
from sseflask.transport.stream import Body, Stream

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

log = logging.getLogger("sseflask")

_warned: set[str] = set()


def transport(stream: Stream, environ: WSGIEnvironment, start_response: StartResponse) -> Body:
    """The body that will carry the stream; the bytes are the same whichever it is."""
    response: Any = getattr(start_response, "__self__", None)
    if "gunicorn.socket" in environ:
        _warn_about_gunicorn(environ, response)
        if _owns_socket(environ, response, stream):
            from sseflask.transport.connection import Connection
            from sseflask.transport.subscriber import Subscriber

            if stream.source is not None:
                return Subscriber(stream.source, stream, environ, start_response, response)
            return Connection(stream, environ, start_response, response)
    body = InlineBody if stream.frames_only else ThreadedBody
    return body(stream, environ, start_response)


def _owns_socket(environ: WSGIEnvironment, response: Any, stream: Stream) -> bool:
    """Whether this is gunicorn's own response on a plain gevent socket.

    Middleware that wraps ``start_response`` wants to see the response pass.
    """
    gevent_socket = sys.modules.get("gevent.socket")
    wsgi = sys.modules.get("gunicorn.http.wsgi")
    return (
        gevent_socket is not None
        and wsgi is not None
        and type(environ["gunicorn.socket"]) is gevent_socket.socket
        and type(response) is wsgi.Response
        and not any(name.lower() == "content-length" for name, _ in stream.headers)
    )


def _warn_about_gunicorn(environ: WSGIEnvironment, response: Any) -> None:
    if type(response).__module__ == "gunicorn.http2.response":
        _warn_once(
            "gunicorn serves the HTTP/2 streams of one connection one after the other: a second "
            "event stream of the same browser gets nothing until the first has ended. Let a "
            "proxy in front speak HTTP/2, and gunicorn HTTP/1.1."
        )
    elif not environ.get("wsgi.multithread", False):
        _warn_once(
            "gunicorn's sync worker serves one stream at a time and is killed after `timeout` "
            "seconds. Start gunicorn with -k sseflask.transport.worker.StreamWorker."
        )


def _warn_once(message: str) -> None:
    if message not in _warned:
        _warned.add(message)
        log.warning(message)
