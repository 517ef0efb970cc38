"""A user's application that prints and logs a lot, and fails in every way."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import gevent
from flask import Flask, Response
from flask.typing import ResponseReturnValue

from sseflask import SSE, EventSourceResponse
from tests.live.kit.notes import ProbeError

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

app = Flask("noisy")
SSE(app)
library = logging.getLogger("noisy.library")

#: What a client might send, to be found in a log.
EVIL = "access_token=abcdef\n2026-11-28 [CRITICAL] forged\x1b[2J\udcff"


@app.get("/hello")
def hello() -> ResponseReturnValue:
    return "hello"


@app.get("/early")
def early() -> ResponseReturnValue:
    raise ProbeError(EVIL)


@app.get("/late")
def late() -> ResponseReturnValue:
    def events() -> Iterator[str]:
        yield "one"
        raise ProbeError(EVIL)

    return EventSourceResponse(events())


@app.get("/upgraded")
def upgraded() -> ResponseReturnValue:
    """Fails when its view has long returned."""

    def events() -> Iterator[str]:
        yield "data: one\n\n"
        gevent.sleep(0.01)
        library.warning("between two events")
        raise ProbeError(EVIL)

    return Response(events(), mimetype="text/event-stream")


@app.get("/says")
def says() -> ResponseReturnValue:
    app.logger.error("said by the application: %s", EVIL)
    library.warning("said by a library", extra={"shop": {"items": [1, 2]}, "bytes": b"\xff\n"})
    print("printed: access_token=abcdef")

    def fail() -> None:
        raise ProbeError("in the background")

    gevent.spawn(fail).join()
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    return "said"


def fragile(
    environ: WSGIEnvironment,
    start_response: StartResponse,
    flask: WSGIApplication = app.wsgi_app,
) -> Iterable[bytes]:
    """What wraps the application fails too."""
    if environ["PATH_INFO"] == "/fragile":
        raise ProbeError(EVIL)
    return flask(environ, start_response)


app.wsgi_app = fragile  # type: ignore[method-assign]
