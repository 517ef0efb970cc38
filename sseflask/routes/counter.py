"""The counter, to watch a stream, and an ordinary response to compare it with."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Annotated, Any

from flask import Blueprint, Response
from pydantic import BaseModel, Field

from sseflask.errors import invalid
from sseflask.event import Event
from sseflask.response import EventSourceResponse
from sseflask.web.cursor import requested_cursor
from sseflask.web.parameters import Seconds, Text, WholeNumber, read_parameters

blueprint = Blueprint("counter", __name__)

MAX_COUNT = 1_000_000
MAX_INTERVAL = 3600

#: Events a second of all counters of a process, which are open to all: a part of a core. And the
#: number of events as which one with a pause after it counts.
EVENTS_PER_SECOND, EVENTS_PER_SLEEP = 50_000, 5

#: Events that one counter makes between two waits, and seconds that all may be ahead.
_AT_ONCE, _AHEAD = 100, 0.05

_NUMBER = re.compile(r"[0-9]{1,16}\Z", re.ASCII)


class CounterParameters(BaseModel):
    """The parameters of the counter; ``interval`` is in seconds."""

    count: Annotated[WholeNumber, Field(ge=0, le=MAX_COUNT)] = 10
    interval: Annotated[Seconds, Field(ge=0, le=MAX_INTERVAL)] = 0.1
    last_event_id: Text | None = None


class _Pace:
    """Limits the events of all counters, first come, first served. Any thread; never blocks."""

    _made_by = 0.0

    def wait_for(self, count: int) -> float:
        """Count more events, and return the seconds to wait before they are made."""
        now = time.monotonic()
        self._made_by = max(now, self._made_by) + count / EVENTS_PER_SECOND
        return max(0.0, self._made_by - now - _AHEAD)


_pace = _Pace()


def _numbers(start: int, count: int, interval: float) -> Iterator[Event]:
    for number in range(start, count):
        if interval:
            pause = _pace.wait_for(EVENTS_PER_SLEEP)
            if number > start:
                pause += interval
        else:
            made = number - start
            pause = 0.0 if made % _AT_ONCE else _pace.wait_for(min(_AT_ONCE, count - number))
        if pause:
            time.sleep(pause)
        yield Event(str(number), id=number)


def _first(query: str | None) -> int:
    cursor = requested_cursor(query)
    if cursor is None or cursor[0] == "earliest":
        return 0
    value, carrier = cursor
    if not _NUMBER.match(value):
        raise invalid(
            f"{carrier} must be the id of an event of this stream (a number) or earliest.",
            param=carrier,
            code="invalid_cursor",
        )
    return int(value) + 1


@blueprint.route("/sse/v1", methods=["GET", "POST"])
def counter() -> Response:
    """Count from 0 to ``count`` - 1, one event each, ``interval`` seconds apart.

    Resumes after the client's cursor; 204, which ends an EventSource for good, if nothing is
    left.
    """
    parameters = read_parameters(CounterParameters)
    start = _first(parameters.last_event_id)
    if start >= parameters.count:
        return Response(status=204)
    return EventSourceResponse(_numbers(start, parameters.count, parameters.interval))


@blueprint.route("/sse/no_sse", methods=["GET", "POST"])
def no_sse() -> dict[str, Any]:
    """The ordinary response to compare a stream with."""
    return {"message": "Hello World"}
