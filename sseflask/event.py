"""The items of an event stream: events and comments. No Flask, no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sseflask.errors import EventError
from sseflask.json_text import json_text

__all__ = ["MOST_JITTER", "MOST_RETRY", "Comment", "Event", "MessageEvent"]

#: The longest reconnection time that fits browsers' own integers, in milliseconds.
MOST_RETRY = 2**31 - 1
#: The longest jitter that can be set, in milliseconds: an hour.
MOST_JITTER = 3_600_000


def _refuse_surrogates(field: str, text: str) -> None:
    if text.isascii():  # known without reading a letter
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise EventError(
            f"{field} has the lone surrogate {text[error.start]!r}, which UTF-8 can't carry: "
            "decode the text properly, or replace it with U+FFFD"
        ) from None


def _plain(text: str) -> str:
    """The text of a subclass of ``str``: an Enum's ``str()`` and format are its name."""
    return str.__str__(text)


def _one_line(field: str, text: object) -> str:
    if text.__class__ is not str:
        if not isinstance(text, str):
            raise EventError(f"{field} must be text, not {type(text).__name__}")
        text = _plain(text)
    if "\n" in text or "\r" in text:
        found = "\r" if "\r" in text.partition("\n")[0] else "\n"
        raise EventError(
            f"{field} {text!r} has the line break {found!r}: only data may have several lines"
        )
    _refuse_surrogates(field, text)
    return text


@dataclass(frozen=True)
class Event:
    """One event as a server sends it, checked by its constructor.

    Args:
        data: the payload. Text is sent as it is (CR, LF and CRLF all reach the client as LF);
            any other value is sent as JSON, as the current application's ``app.json`` writes it,
            see `sseflask.json_text`. ``None`` sends no data field: the client dispatches
            nothing, but stores ``id`` and ``retry``.
        event: the event's type; without one it is ``message`` to the client.
        id: the client presents it as ``Last-Event-ID`` when it reconnects; a whole number
            is written in digits, an empty text deletes the client's last id.
        retry: how long the client waits before it reconnects, in milliseconds.

    Raises:
        EventError: a line break in ``event`` or ``id``, NUL in ``id``, a lone surrogate,
            a ``retry`` that is not a whole number of at least 0, data that is not JSON.

    See the WHATWG HTML standard, section 9.2.6 "Interpreting an event stream".
    """

    data: str | None = None
    event: str | None = None
    id: str | None = None
    retry: int | None = None

    def __init__(
        self,
        data: Any = None,
        event: str | None = None,
        id: str | int | None = None,
        retry: int | None = None,
    ) -> None:
        if data is not None:
            if data.__class__ is not str:
                data = _plain(data) if isinstance(data, str) else json_text(data)
            _refuse_surrogates("data", data)
        if event is not None:
            event = _one_line("event", event)
        if id is not None:
            if isinstance(id, int) and not isinstance(id, bool):
                id = int.__repr__(id)
            id = _one_line("id", id)
            if "\0" in id:
                raise EventError(f"id {id!r} has NUL: clients ignore such an id")
        if retry is not None and (
            isinstance(retry, bool) or not isinstance(retry, int) or retry < 0
        ):
            raise EventError(f"retry must be milliseconds, a whole number from 0, not {retry!r}")
        if retry.__class__ is not int and retry is not None:
            retry = int(retry)
        # Written by hand for the hot path: one pass converts and checks, and writing to __dict__
        # takes a quarter of the time of object.__setattr__.
        fields = self.__dict__
        fields["data"] = data
        fields["event"] = event
        fields["id"] = id
        fields["retry"] = retry


@dataclass(frozen=True)
class Comment:
    """A line that clients skip: a heartbeat, or an explanation for human readers.

    Args:
        text: the comment; each line of it becomes a comment line.

    Raises:
        EventError: the text has a lone surrogate.
    """

    text: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise EventError(f"a comment must be text, not {type(self.text).__name__}")
        _refuse_surrogates("a comment", self.text)


@dataclass(frozen=True)
class MessageEvent:
    """One event as a client dispatches it: the standard's ``MessageEvent``.

    Args:
        data: the data lines joined with LF.
        event: the type; ``message`` if the stream has none.
        last_event_id: the last id on the stream so far, perhaps empty.
    """

    data: str
    event: str = "message"
    last_event_id: str = ""
