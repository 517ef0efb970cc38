"""The body of a request to publish: one event or several, as JSON or as plain text."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from flask import request

from sseflask.channels.event_frames import encode_event
from sseflask.errors import EventError, invalid
from sseflask.json_text import COMPACT, json_text
from sseflask.loop.callbacks import TimeSlice
from sseflask.web.parameters import is_json, json_value, read_body

#: The most events of one request: they are stored together, while others wait.
MAX_EVENTS = 1000

_FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True)
class Publication:
    """The events of one request, as they are stored; ``several`` if they came as an array."""

    frames: tuple[bytes, ...]
    several: bool

    def digest(self) -> bytes:
        shape = "several" if self.several else "one"
        sizes = ",".join([shape, *(str(len(frame)) for frame in self.frames)])
        return hashlib.sha256(b"\0".join([sizes.encode(), *self.frames])).digest()


def read_publication() -> Publication:
    """Read the events to publish from the current request. Blocks until all of its body has come.

    Raises 400 for an event that can't be sent, 415 for another media type; see also `read_body`.
    """
    body, kind = read_body(), request.mimetype
    if is_json(kind):
        return _from_json(body)
    if kind.startswith("multipart/"):
        raise invalid(
            "A multipart body can't be published: send JSON (application/json) or the text itself "
            "(text/plain).",
            status=415,
            code="unsupported_media_type",
        )
    if kind == _FORM and body.lstrip()[:1] in (b"{", b"["):
        raise invalid(
            "The body looks like JSON but is declared a form: add the header "
            "Content-Type: application/json (or text/plain, if it is the text to publish).",
            code="invalid_json",
        )
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise invalid("The text to publish is not valid UTF-8.", code="invalid_body") from None
    if not text:
        raise invalid(
            'There is nothing to publish: send a text, or JSON such as {"data": "hello"}.',
            code="empty_body",
        )
    return Publication((_frame({"data": text}),), several=False)


def _from_json(body: bytes) -> Publication:
    pause = TimeSlice()
    value = json_value(body, pause)
    if isinstance(value, dict):
        return Publication((_frame(value),), several=False)
    if not isinstance(value, list):
        raise invalid(
            'The JSON body must be an event such as {"data": "hello"}, or an array of events.',
            code="invalid_json",
        )
    if not 1 <= len(value) <= MAX_EVENTS:
        raise invalid(
            f"An array holds 1 to {MAX_EVENTS} events, not {len(value)}: they are stored together.",
            code="invalid_event",
        )
    frames = []
    for number, event in enumerate(value):
        frames.append(_frame(event, f"[{number}]"))
        pause()
    return Publication(tuple(frames), several=True)


def _frame(event: Any, where: str = "") -> bytes:
    """The bytes of one event; ``where`` is its index in the array, for the message."""
    which = f"The event {where} " if where else "The event "
    if not isinstance(event, dict):
        raise invalid(
            f'{which}must be an object such as {{"data": "hello"}}.', code="invalid_event"
        )
    for name in event:
        if name not in ("data", "event", "retry"):
            raise invalid(
                f"{which}has the field {name[:80]!r}; it may have data, event and retry. Ids are "
                "given by the server.",
                param=name[:80],
                code="invalid_event",
            )
    if "data" not in event:
        raise invalid(f"{which}has no data.", param="data", code="invalid_event")
    data, type_, retry = event["data"], event.get("event"), event.get("retry")
    if isinstance(retry, float) and retry.is_integer():
        retry = int(retry)  # the same number in JSON
    try:
        # JSON is stored as it came, without the application's encoder.
        text = data if isinstance(data, str) else json_text(data, COMPACT)
        return encode_event(text, type_, retry)
    except EventError as error:
        raise invalid(f"{which}can't be sent: {error}.", code="invalid_event") from error
