"""Generators to be run: each takes what the test asks for, and notes what happens to it."""

from __future__ import annotations

import asyncio
import datetime
import os
import queue
import socket
import threading
import time
import weakref
from collections.abc import Callable, Generator, Mapping
from typing import Any

import gevent
from werkzeug.exceptions import Conflict

from sseflask import Comment, Event, Failure
from tests.live.durable.probe.gates import wait_until_allowed
from tests.live.durable.probe.values import REASON, RETURNED, UNSPEAKABLE
from tests.live.kit.notes import ProbeError, mark

Asked = Mapping[str, str]
Made = Generator[Any, Any, Any]


def number(asked: Asked, name: str, default: float) -> float:
    return float(asked.get(name, default))


def started(asked: Asked) -> None:
    mark(asked["tag"], f"started {os.getpid()}")


def ended(asked: Asked) -> None:
    mark(asked["tag"], "finally")


def _numbers(asked: Asked, first: int) -> Made:
    """The numbers from the first one; each may wait for the test, or for a time."""
    tag, count, size = asked["tag"], int(number(asked, "count", 10)), int(number(asked, "size", 0))
    started(asked)
    try:
        for n in range(first, count):
            if "gated" in asked:
                wait_until_allowed(tag, n + 1)
            elif "interval" in asked:
                time.sleep(number(asked, "interval", 0))
            text = f"{tag}:{n}"
            yield f"{text}:{'x' * size}" if size else text
        mark(tag, "finished")
    finally:
        ended(asked)
    return {"count": count}


def numbers(asked: Asked) -> Made:
    return _numbers(asked, 0)


def go_on(asked: Asked, last_item: Any) -> Made:
    """What another worker goes on with: the numbers after the last item."""
    mark(asked["tag"], f"resumed {os.getpid()} {last_item}")
    return _numbers(asked, 0 if last_item is None else int(str(last_item).split(":")[1]) + 1)


def from_the_start() -> Made:
    """What another worker goes on with that was given no item."""
    yield "from the start"


def kinds(_asked: Asked) -> Made:
    """All that an `EventSourceResponse` takes."""
    yield "text"
    yield ""
    yield "two\nlines\r\nand a third"
    yield "ünïcode 你好 \u2028 \U0001f600"
    yield {"a": 1, "b": [None, True, "x\n"]}
    yield [1, 2]
    yield 3
    yield 3.5
    yield True
    yield None
    yield datetime.date(2026, 11, 29)
    yield Event("typed", event="note")
    yield Event({"k": "v"}, event="json")
    yield Event("with an id of its own", id="mine")
    yield Event("with a number of its own", id=7, event="note")
    yield Event("with a pace", retry=700)
    yield Event(event="without data")
    yield Comment("a comment")
    yield b"data: raw\n\n"
    yield b"event: raw\ndata: one\ndata: two\n\n"
    yield b"data: first of two\n\ndata: second of two\n\n"
    yield bytearray(b"data: array\n\n")
    yield Event("last")


def returning(asked: Asked) -> Made:
    yield "only"
    return {**RETURNED, **UNSPEAKABLE, "reason": REASON}[asked["value"]]


def returning_at_once(asked: Asked) -> Made:
    """Ends before it has yielded."""
    started(asked)
    if asked.get("never"):
        yield "never"
    ended(asked)
    return "nothing to say"


def failing(asked: Asked) -> Made:
    """Raises after some items."""
    started(asked)
    try:
        for n in range(int(number(asked, "after", 2))):
            yield f"{asked['tag']}:{n}"
        raise {
            "probe": ProbeError("secret detail"),
            "failure": Failure(
                "too much of it", status=429, type="rate_limit_error", param="n", code="slow_down"
            ),
            "http": Conflict("there already"),
            "timeout": gevent.Timeout(0.1),
            "cancelled": asyncio.CancelledError("on purpose"),
            "generator": GeneratorExit("on purpose"),
            "greenlet": gevent.GreenletExit("on purpose"),
            "system": SystemExit(3),
        }[asked.get("error", "probe")]
    finally:
        ended(asked)


def unencodable(asked: Asked) -> Made:
    """Yields what can't be sent; whether it is told so at its `yield`, it notes."""
    yield "before"
    try:
        yield object()
    except Exception as error:
        mark(asked["tag"], f"told {type(error).__name__}")
        raise
    finally:
        ended(asked)


def _blocked(kind: str) -> None:
    if kind == "sleep":
        time.sleep(3600)
    elif kind == "queue":
        queue.Queue[None]().get()
    elif kind == "event":
        threading.Event().wait()
    elif kind == "lock":
        lock = threading.Lock()
        lock.acquire()
        lock.acquire()
    elif kind == "socket":
        one, other = socket.socketpair()
        with one, other:
            one.recv(1)
    elif kind == "accept":
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            listener.accept()
    else:
        raise ValueError(kind)


def blocking(asked: Asked) -> Made:
    """Yields some, and then waits for ever."""
    tag = asked["tag"]
    started(asked)
    try:
        for n in range(int(number(asked, "before", 1))):
            yield f"{tag}:{n}"
        mark(tag, "blocked")
        _blocked(asked.get("kind", "event"))
        mark(tag, "went on")
    finally:
        ended(asked)


def endless(asked: Asked) -> Made:
    """Yields for as long as it is advanced."""
    started(asked)
    n = 0
    try:
        while True:
            yield f"{asked['tag']}:{n}:{'x' * int(number(asked, 'size', 0))}"
            n += 1
            time.sleep(number(asked, "interval", 0.01))
    finally:
        ended(asked)


def failing_at_its_end(asked: Asked) -> Made:
    """Raises in its `finally`, however it ends."""
    started(asked)
    try:
        yield from _held(asked)
    finally:
        ended(asked)
        raise ProbeError("secret detail of finally")


def _held(asked: Asked) -> Made:
    """Three items; then it waits for the test if it is asked to."""
    for n in range(3):
        yield f"{asked['tag']}:{n}"
    if "gated" in asked:
        mark(asked["tag"], "waiting")
        wait_until_allowed(asked["tag"], 1)
        yield f"{asked['tag']}:late"


def swallowing(asked: Asked) -> Made:
    """Takes no end: whatever would end it, it goes on `times` times."""
    tag = asked["tag"]
    started(asked)
    for n in range(int(number(asked, "times", 2)) + 1):
        try:
            yield f"{tag}:{n}"
            mark(tag, f"waiting {n}")
            wait_until_allowed(tag, 1)
            yield f"{tag}:woken"
        except BaseException as error:
            mark(tag, f"swallowed {n} {type(error).__name__}")
    ended(asked)


def yielding_at_its_end(asked: Asked) -> Made:
    """Yields in its `finally`, though it has been closed."""
    started(asked)
    try:
        yield from _held(asked)
    finally:
        mark(asked["tag"], "closing")
        yield f"{asked['tag']}:after the close"
        ended(asked)


class Collected:
    """Something that says when nobody holds it any more."""

    def __init__(self, tag: str) -> None:
        weakref.finalize(self, mark, tag, "collected").atexit = False


def holding(asked: Asked) -> Made:
    """Has something big as long as it runs, and fails if it is asked to."""
    started(asked)
    held = Collected(asked["tag"])
    yield "holding"
    if "gated" in asked:
        wait_until_allowed(asked["tag"], 1)
    if "error" in asked:
        raise ProbeError("secret detail")
    yield type(held).__name__


class Iterated:
    """No generator, but an iterator that can be closed."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._n = 0

    def __iter__(self) -> Iterated:
        return self

    def __next__(self) -> str:
        if not self._n:
            started(self._asked)
        if self._n == int(number(self._asked, "count", 3)):
            raise StopIteration
        if "gated" in self._asked:
            wait_until_allowed(self._asked["tag"], self._n + 1)
        self._n += 1
        return f"{self._asked['tag']}:{self._n - 1}"

    def close(self) -> None:
        mark(self._asked["tag"], "closed")


def listed(asked: Asked) -> Any:
    """A list will do as well."""
    return [f"{asked['tag']}:{n}" for n in range(3)]


async def asynchronous(_asked: Asked) -> Any:
    yield "never"


#: By name: what ``sse.run`` is given is made by these.
GENERATORS: Mapping[str, Callable[[Asked], Any]] = {
    each.__name__: each
    for each in (
        *(numbers, kinds, returning, returning_at_once, failing, unencodable, blocking, endless),
        *(failing_at_its_end, swallowing, yielding_at_its_end, holding, listed, asynchronous),
    )
} | {
    "iterated": Iterated,
    "text": lambda _: "not a stream",
    "nothing": lambda _: None,
    "function": lambda _: numbers,
}
