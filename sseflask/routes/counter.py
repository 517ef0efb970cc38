"""The counter, to see a stream with one's own eyes, and its ordinary twin to compare with."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Annotated, Any

from flask import Blueprint, Response
from pydantic import BaseModel, Field

from sseflask.event import Event
from sseflask.response import EventSourceResponse
from sseflask.routes.parameters import (
    Seconds,
    Text,
    WholeNumber,
    invalid,
    last_event_id,
    read_parameters,
)

__all__ = ["blueprint"]

blueprint = Blueprint("counter", __name__)

#: The counter is open to all, without a pause if asked so: a fraction of a second of a core.
MAX_COUNT = 1_000_000
MAX_INTERVAL = 3600

_NUMBER = re.compile(r"[0-9]{1,16}\Z", re.ASCII)


class CounterParameters(BaseModel):
    """What the counter can be asked for; ``interval`` is in seconds."""

    count: Annotated[WholeNumber, Field(ge=0, le=MAX_COUNT)] = 10
    interval: Annotated[Seconds, Field(ge=0, le=MAX_INTERVAL)] = 0.1
    last_event_id: Text | None = None


def _numbers(start: int, count: int, interval: float) -> Iterator[Event]:
    for number in range(start, count):
        if interval and number > start:
            time.sleep(interval)
        yield Event(str(number), id=number)


def _first(query: str | None) -> int:
    cursor = last_event_id(query)
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

    Resumes behind the client's cursor; 204, which ends an EventSource for good, when nothing
    is left.
    """
    asked = read_parameters(CounterParameters)
    start = _first(asked.last_event_id)
    if start >= asked.count:
        return Response(status=204)
    return EventSourceResponse(_numbers(start, asked.count, asked.interval))


@blueprint.route("/sse/no_sse", methods=["GET", "POST"])
def no_sse() -> dict[str, Any]:
    """The ordinary response to compare a stream with."""
    return {"message": "Hello World"}
