"""Generators that behave in all the ways that generators do."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from queue import Queue

from flask import Blueprint, Response, request
from flask.typing import ResponseReturnValue

from sseflask import Event, EventSourceResponse, Failure
from tests.live.kit.notes import ProbeError, counts, mark, number, options, tag, wait_for_wake

blueprint = Blueprint("behaviour", __name__)


@blueprint.route("/silent", methods=["GET", "POST"])
def silent() -> ResponseReturnValue:
    """One event, then nothing until the tag is woken; ends when woken `wakes` times."""
    name, wakes = tag(), int(number("wakes", 0))
    first = Event("first", id=1 if "ids" in request.args else None)

    def events() -> Iterator[str | Event]:
        mark(name, "started")
        try:
            yield first
            seen = 0
            while not wakes or seen < wakes:
                seen = wait_for_wake(name, seen)
                yield f"woken {seen}"
            mark(name, "finished")
        finally:
            mark(name, "finally")

    return EventSourceResponse(events(), **options())


@blueprint.get("/late")
def late() -> ResponseReturnValue:
    """Nothing before the tag is woken; then one event, or an error."""
    name, error = tag(), request.args.get("error")

    def events() -> Iterator[str]:
        mark(name, "started")
        try:
            wait_for_wake(name, 0)
            if error:
                raise Failure(error, status=503, code="late")
            yield "late"
        finally:
            mark(name, "finally")

    return EventSourceResponse(events(), **options())


@blueprint.get("/busy")
def busy() -> ResponseReturnValue:
    """Computes between its yields and never blocks; each event says when it was made."""
    name, milliseconds = tag(), number("milliseconds", 2)
    events_to_make = int(number("count", 1000))

    def events() -> Iterator[str]:
        try:
            for n in range(events_to_make):
                end = time.perf_counter() + milliseconds / 1000
                while time.perf_counter() < end:
                    pass
                counts[name] = n + 1
                yield f"{n} {time.monotonic()}"
            mark(name, "finished")
        finally:
            mark(name, "finally")

    return EventSourceResponse(events(), **options())


@blueprint.route("/burst", methods=["GET", "POST"])
def burst() -> ResponseReturnValue:
    """Many events at once, each of `size` bytes of data or a little more."""
    name, events_to_make = tag(), int(number("count", 1000))
    padding = "x" * int(number("size", 0))

    def events() -> Iterator[str]:
        for n in range(events_to_make):
            yield f"{n} {padding}"
        mark(name, "finished")

    return EventSourceResponse(events(), **options())


@blueprint.get("/bursts")
def bursts() -> ResponseReturnValue:
    """A burst of ten after each wake, so that each burst can be seen on the wire by itself."""
    name, rounds = tag(), int(number("rounds", 5))

    def events() -> Iterator[str]:
        yield "ready"
        for seen in range(rounds):
            wait_for_wake(name, seen)
            for n in range(10):
                yield f"{seen} {n}"

    return EventSourceResponse(events(), **options())


@blueprint.get("/handed-on")
def handed_on() -> ResponseReturnValue:
    """Each event is made by one thread and yielded by another, `interval` seconds apart; it says
    when it was made. Nothing else happens meanwhile that could move it along."""
    items: Queue[str | None] = Queue()
    events_to_make, interval = int(number("count", 4)), number("interval", 0.4)

    def make() -> None:
        for n in range(events_to_make):
            time.sleep(interval)
            items.put(f"{n} {time.monotonic()}")
        time.sleep(interval)
        items.put(None)

    def events() -> Iterator[str]:
        threading.Thread(target=make).start()
        yield "ready"
        while (item := items.get()) is not None:
            yield item

    return EventSourceResponse(events(), **options())


@blueprint.get("/flood")
def flood() -> ResponseReturnValue:
    """Makes events of 64 KiB for as long as they are taken."""
    name = tag()

    def events() -> Iterator[bytes]:
        frame = b"data: " + b"x" * 65536 + b"\n\n"
        try:
            while True:
                counts[name] = counts.get(name, 0) + 1
                yield frame
        finally:
            mark(name, "finally")

    return EventSourceResponse(events(), **options())


@blueprint.route("/numbers", methods=["GET", "POST"])
def numbers() -> ResponseReturnValue:
    """A counter; with `ids` it can be resumed, after `retry` milliseconds."""
    name, last, interval = tag(), int(number("count", 10)), number("interval", 0.02)
    ids = "ids" in request.args
    retry = int(number("retry", 0)) or None
    first = int(request.headers.get("Last-Event-ID", -1)) + 1
    if first >= last:
        return "", 204

    def events() -> Iterator[Event]:
        try:
            for n in range(first, last):
                yield Event(str(n), id=n if ids else None, retry=retry if n == first else None)
                if n + 1 < last:
                    time.sleep(interval)
            mark(name, "finished")
        finally:
            mark(name, "finally")

    return EventSourceResponse(events(), **options())


@blueprint.get("/error")
def error() -> ResponseReturnValue:
    """Fails after `after` events, with an error of the app or a `Failure`."""
    name, after, plain = tag(), int(number("after", 0)), "plain" in request.args
    failure = "failure" in request.args

    def events() -> Iterator[str]:
        try:
            for n in range(after):
                yield f"data: {n}\n\n" if plain else str(n)
            if failure:
                raise Failure(
                    "too much of it",
                    status=429,
                    type="rate_limit_error",
                    param="after",
                    code="slow_down",
                    headers={"Retry-After": "7"},
                )
            raise ProbeError("secret detail")
        finally:
            mark(name, "finally")

    if plain:
        return Response(events(), mimetype="text/event-stream")
    return EventSourceResponse(events(), **options())


@blueprint.get("/compute")
def compute() -> ResponseReturnValue:
    """Computes for a third of a second between two yields."""

    def events() -> Iterator[str]:
        yield "before"
        end = time.perf_counter() + 0.3
        while time.perf_counter() < end:
            pass
        yield "after"

    return EventSourceResponse(events())


@blueprint.get("/stubborn")
def stubborn() -> ResponseReturnValue:
    """Swallows whatever would end it, `times` times, and goes on waiting."""
    name, times = tag(), int(number("times", 2))

    def events() -> Iterator[str]:
        yield "first"
        for n in range(times):
            try:
                wait_for_wake(name, 0)
                yield "woken"
            except BaseException as error:
                mark(name, f"swallowed {n} {type(error).__name__}")
        mark(name, "finished")

    return EventSourceResponse(events(), **options())


@blueprint.get("/slow-finally")
def slow_finally() -> ResponseReturnValue:
    """Its `finally` block waits for the tag to be woken."""
    name = tag()

    def events() -> Iterator[str]:
        try:
            yield "first"
            wait_for_wake(f"{name}-body", 0)
            yield "second"
        finally:
            mark(name, "cleaning")
            wait_for_wake(name, 0)
            mark(name, "finally")

    return EventSourceResponse(events(), **options())


@blueprint.get("/short")
def short() -> ResponseReturnValue:
    """Three events; with `wait` it then stays silent."""
    wait = "wait" in request.args

    def events() -> Iterator[str]:
        for n in range(3):
            yield str(n)
        if wait:
            wait_for_wake("short", 0)

    return EventSourceResponse(events(), **options())


@blueprint.post("/late-body")
def late_body() -> ResponseReturnValue:
    """Reads the request's body in the generator, after the first event."""

    def events() -> Iterator[str]:
        yield "first"
        body = request.get_data()
        yield f"{len(body)} {hashlib.sha256(body).hexdigest()}"

    return EventSourceResponse(events(), **options())


@blueprint.post("/unread")
def unread() -> ResponseReturnValue:
    """Streams without ever looking at the request's body."""

    def events() -> Iterator[str]:
        for n in range(20):
            yield f"{n} {'x' * 1000}"
            time.sleep(0.01)

    return EventSourceResponse(events())
