"""Views that go wrong, and generators that do nothing for a long time at full speed."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from typing import Any

from flask import Blueprint, Response, request
from flask.typing import ResponseReturnValue

from sseflask import Event, EventSourceResponse, Failure
from tests.live.kit.notes import ProbeError, counts, mark, number, options, tag

blueprint = Blueprint("faults", __name__, url_prefix="/faults")

#: How long a generator that waits in vain goes on; only a failing test waits for all of it.
_PATIENCE = 10.0


class BareError(BaseException):
    """No Exception, and nothing that Python knows."""


_BARE: dict[str, type[BaseException]] = {
    "GeneratorExit": GeneratorExit,
    "KeyboardInterrupt": KeyboardInterrupt,
    "SystemExit": SystemExit,
    "BareError": BareError,
}


@blueprint.post("/early")
def early() -> ResponseReturnValue:
    """Ignores the request's body and fails before its first event, `seconds` later."""
    seconds = number("seconds", 0.3)

    def events() -> Iterator[str]:
        time.sleep(seconds)
        yield from ()
        raise ProbeError("before the first event")

    return EventSourceResponse(events(), **options())


@blueprint.post("/body")
def body() -> ResponseReturnValue:
    """Reads `request.stream` in the generator; with `view` the view has got hold of it before."""
    held = request.stream if "view" in request.args else None

    def events() -> Iterator[str]:
        yield "first"
        stream = held or request.stream
        digest, size = hashlib.sha256(), 0
        while piece := stream.read(65536):
            digest.update(piece)
            size += len(piece)
        yield f"{size} {digest.hexdigest()}"

    return EventSourceResponse(events())


@blueprint.get("/header")
def header() -> ResponseReturnValue:
    """A header that HTTP/1.1 cannot carry; the first event comes `seconds` later."""
    name, seconds = tag(), number("seconds", 0)

    def events() -> Iterator[str]:
        try:
            time.sleep(seconds)
            yield "first"
        finally:
            mark(name, "finally")

    return EventSourceResponse(events(), headers={"X-Title": "标题"}, **options())


@blueprint.post("/nudge")
def nudge() -> ResponseReturnValue:
    """Tells the tag's idle generator that another request was served."""
    counts[tag()] = 1
    return "", 204


@blueprint.get("/idle")
def idle() -> ResponseReturnValue:
    """Yields nothing but empty pieces until it is nudged, or for too long."""
    name = tag()
    plain = "plain" in request.args
    empty: Any = "" if plain else b""
    message = "data: %s\n\n" if plain else "%s"

    def pieces() -> Iterator[Any]:
        try:
            mark(name, "started")
            end = time.monotonic() + _PATIENCE
            while not counts.get(name) and time.monotonic() < end:
                yield empty
            mark(name, "finished")
            yield message % ("nudged" if counts.get(name) else "not nudged")
        finally:
            mark(name, "finally")

    if plain:
        return Response(pieces(), mimetype="text/event-stream")
    return EventSourceResponse(pieces(), **options())


@blueprint.get("/bare")
def bare() -> ResponseReturnValue:
    """Raises what is no Exception, after `after` events."""
    error, after = _BARE[request.args["error"]], int(number("after", 0))
    name = tag()

    def events() -> Iterator[str]:
        try:
            for n in range(after):
                yield str(n)
            raise error("secret detail")
        finally:
            mark(name, "finally")

    return EventSourceResponse(events(), **options())


@blueprint.get("/failure-event")
def failure_event() -> ResponseReturnValue:
    """Fails, and so does what should tell it."""

    def events() -> Iterator[str]:
        yield "first"
        raise Failure("the real one", code="real")

    def tell(failure: Failure) -> Event:
        raise ProbeError(f"could not tell {failure}")

    return EventSourceResponse(events(), failure_event=tell)
