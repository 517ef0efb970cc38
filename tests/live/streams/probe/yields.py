"""Generators that yield all that may be yielded, and some that look around them."""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterator
from typing import Any

from flask import Blueprint, Response, request, stream_with_context
from flask.typing import ResponseReturnValue

from sseflask import Comment, Event, EventSourceResponse
from tests.live.kit.notes import mark, tag

blueprint = Blueprint("yields", __name__)


@blueprint.get("/kinds")
def kinds() -> ResponseReturnValue:
    """One of everything that may be yielded."""

    def events() -> Iterator[Any]:
        yield "text"
        yield "two\r\nlines"
        yield {"n": 1, "text": "你好"}
        yield [1, "two", None]
        yield 5
        yield 1.5
        yield True
        yield Comment("a remark")
        yield Event("data", event="kind", id="7", retry=2500)
        yield b"event: ready\nid: 8\ndata: made\n\n"
        yield "data: not a frame"
        yield ""

    return EventSourceResponse(events())


@blueprint.get("/released")
def released() -> ResponseReturnValue:
    """Says whether an event is still held when the next one is asked for."""

    def events() -> Iterator[Any]:
        items = [Event("x" * 100_000, id=1)]
        first = weakref.ref(items[0])
        yield items.pop()
        yield "released" if first() is None else "held"

    return EventSourceResponse(events())


@blueprint.get("/unfit")
def unfit() -> ResponseReturnValue:
    """Yields something that no stream can carry, after one event."""

    def events() -> Iterator[Any]:
        yield "fine"
        yield object()

    return EventSourceResponse(events())


@blueprint.route("/plain", methods=["GET", "POST"])
def plain() -> ResponseReturnValue:
    """A view as people have it: `SSE(app)` upgrades it."""
    name = tag()

    def frames() -> Iterator[str]:
        try:
            for n in range(5):
                yield f"id: {n}\ndata: 第{n}\n\n"
                time.sleep(0.02)
        finally:
            mark(name, "finally")

    response = Response(frames(), mimetype="text/event-stream", headers={"X-View": "plain"})
    response.call_on_close(lambda: mark(name, "closed"))
    return response


@blueprint.get("/plain-pieces")
def plain_pieces() -> ResponseReturnValue:
    """A plain response whose pieces are parts of frames; they are passed on as they are."""

    def pieces() -> Iterator[bytes]:
        yield b"data: on"
        yield b"e\n"
        yield b"\nda"
        yield b"ta: two\n\n"

    return Response(pieces(), mimetype="text/event-stream")


@blueprint.get("/context")
def context() -> ResponseReturnValue:
    """The generator reads the request."""

    def events() -> Iterator[str]:
        for n in range(3):
            time.sleep(0.02)
            yield f"{n} {request.args['name']} {request.headers['X-Name']}"

    return EventSourceResponse(events())


@blueprint.get("/plain-context")
def plain_context() -> ResponseReturnValue:
    """A plain response has the context it always had: only what `stream_with_context` keeps.

    But for its first piece, which is there before the view's contexts end.
    """

    def frames() -> Iterator[str]:
        yield "data: first\n\n"
        try:
            yield f"data: {request.args['name']}\n\n"
        except RuntimeError:
            yield "data: no context\n\n"

    kept = stream_with_context(frames()) if "keep" in request.args else frames()
    return Response(kept, mimetype="text/event-stream")
