"""Runs of what an application yields: its items as frames, their view, and how they end. No I/O.

A frame is one event, or one comment, without an id: the view gives it the run's.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from flask import Flask

from sseflask.errors import EventError
from sseflask.event import Comment, Event
from sseflask.items import encode_item
from sseflask.json_text import json_text
from sseflask.runs.format_api import Format
from sseflask.runs.outcome import Outcome
from sseflask.store.run_api import Run, size_of
from sseflask.transport.failures import failure_event
from sseflask.wire import Decoder, encode

#: The label of these runs.
ITEMS = "items"

#: The types of a run's last event.
_TERMINAL = ("done", "failure")


class ItemEncoder:
    """Turns the items of one run into frames. For one greenlet or thread.

    Args:
        app: the application whose JSON provider is used.
    """

    def __init__(self, app: Flask | None) -> None:
        self._app = app
        self._decoder: Decoder | None = None

    def frames(self, item: Any) -> list[bytes]:
        """The frames of an item: none for bytes that don't complete an event.

        Of bytes the events stay, and the reconnection time: their comments and ids do not.

        Raises:
            EventError: it can't be sent, or has the type of a run's last event.
        """
        if isinstance(item, str):
            return [encode_item(self._app, item)]
        if isinstance(item, Event):
            _check_type(item.event)
            if item.id is not None:
                item = Event(item.data, item.event, retry=item.retry)
            frame = encode(item)
            return [frame] if frame else []
        if isinstance(item, Comment):
            return [encode(item) + b"\n"]
        if isinstance(item, (bytes, bytearray, memoryview)):
            return self._ready_made(bytes(item))
        return [encode_item(self._app, item)]

    def _ready_made(self, frames: bytes) -> list[bytes]:
        if self._decoder is None:
            if _is_one_plain_event(frames):
                return [frames]
            self._decoder = Decoder()
        decoded = []
        for event in self._decoder.feed(frames):
            _check_type(event.event)
            type_ = None if event.event == "message" else event.event
            decoded.append(encode(Event(event.data, type_)))
        if self._decoder.retry is not None:
            decoded.append(encode(Event(retry=self._decoder.retry)))
            self._decoder.retry = None
        return decoded


def _is_one_plain_event(frame: bytes) -> bool:
    """Whether it is one event of data lines alone, as nearly all are."""
    return (
        frame.startswith(b"data:")
        and frame.endswith(b"\n\n")
        and b"\r" not in frame
        and frame.count(b"\n") == frame.count(b"\ndata:") + 2
        and _is_text(frame)
    )


def _is_text(frame: bytes) -> bool:
    try:
        frame.decode()
    except UnicodeDecodeError:
        return False
    return True


def _check_type(event: str | None) -> None:
    if event in _TERMINAL:
        raise EventError(
            f"the type {event!r} is reserved for a run's last event, which is sent by itself: "
            "return the result, or raise Failure; or use another type"
        )


@dataclass(frozen=True)
class ItemOutcome(Outcome):
    """How a run of items has ended.

    Args:
        result: what the generator has returned, as JSON; ``None`` if JSON can't carry it.
    """

    result: str | None = None

    @property
    def size(self) -> int:
        return 0 if self.result is None else size_of((self.result.encode(),))

    def further(self) -> dict[str, Any]:
        return {} if self.result is None else {"result": self.result}

    @classmethod
    def of(cls, run: Run) -> ItemOutcome:
        stored = cls.stored(run)
        return cls(stored["kind"], stored["reason"], stored["failure"], stored.get("result"))

    def last_event(self) -> Event:
        """The run's last event: ``done``, or ``failure`` with the error."""
        if self.kind == "failed" and (failure := self.as_failure()) is not None:
            return failure_event(failure)
        more = "" if self.result is None else f',"result":{self.result}'
        return Event(f'{{"status":{json.dumps(self.kind)}{more}}}', event="done")


def result_json(value: object, app: Flask | None) -> str | None:
    """What a generator has returned, as JSON; ``None`` if JSON can't carry it."""
    try:
        text = json_text(value, app and app.json)
        text.encode()
    except (EventError, UnicodeEncodeError):
        return None
    return text


class ItemView:
    """The items as they were yielded, with ids, and the last event."""

    def __init__(self, run: str, _label: str) -> None:
        self._run = run.encode()

    def take(self, number: int, frame: bytes) -> bytes:
        return b"id: %b.%d\n%b" % (self._run, number, frame)

    def end(self, number: int, outcome: ItemOutcome) -> bytes:
        return self.take(number, encode(outcome.last_event()))


ITEM_FORMAT = Format(ItemView, stateless=True)
