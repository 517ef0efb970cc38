"""The items of an event stream: events and comments. No Flask, no I/O."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass
from operator import attrgetter
from typing import Any

from sseflask.errors import EventError
from sseflask.frame import event_frame
from sseflask.json_text import json_text

__all__ = ["MOST_JITTER", "MOST_RETRY", "Comment", "Event", "MessageEvent"]

#: The longest reconnection time that fits browsers' own integers, in milliseconds.
MOST_RETRY = 2**31 - 1
#: The longest jitter that can be set, in milliseconds: an hour.
MOST_JITTER = 3_600_000

#: Characters of data up to which an event keeps its frame: a large one is not held in memory twice.
_MOST_KEPT = 512


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
    return text


def _id(id: object) -> str:
    if isinstance(id, int) and not isinstance(id, bool):
        return int.__repr__(id)
    text = _one_line("id", id)
    if "\0" in text:
        raise EventError(f"id {text!r} has NUL: clients ignore such an id")
    return text


def _milliseconds(retry: object) -> int:
    if isinstance(retry, bool) or not isinstance(retry, int) or retry < 0:
        raise EventError(f"retry must be milliseconds, a whole number from 0, not {retry!r}")
    return int(retry)


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

    # Slots under other names, as a dataclass gives its fields' names to their defaults.
    __slots__ = ("__weakref__", "_data", "_event", "_frame", "_id", "_retry")

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
        if data is not None and data.__class__ is not str:
            data = _plain(data) if isinstance(data, str) else json_text(data)
        if event is not None and (event.__class__ is not str or "\n" in event or "\r" in event):
            event = _one_line("event", event)
        if id is not None:
            id = str(id) if id.__class__ is int else _id(id)
        if retry is not None:
            retry = _milliseconds(retry)
        if self.__class__ is Event:
            self._data = data
            self._event = event
            self._id = id
            self._retry = retry
            if data is None or len(data) <= _MOST_KEPT:
                try:
                    self._frame = event_frame(data, event, id, retry)
                    return
                except UnicodeEncodeError:
                    pass  # which field it is comes out below
        else:
            # A derived class may refuse all assignments, and have other values for the fields.
            for slot, value in zip(_SLOTS, (data, event, id, retry), strict=True):
                object.__setattr__(self, slot, value)
        for field, text in ("data", data), ("event", event), ("id", id):
            if text is not None:
                _refuse_surrogates(field, text)

    def __reduce_ex__(self, protocol: Any) -> Any:
        if self.__class__ is Event:
            return Event, (self.data, self.event, self.id, self.retry)
        return super().__reduce_ex__(max(protocol, 2))  # those below refuse slots

    def __setstate__(self, state: Any) -> None:
        # Of a derived class, with its own slots or without; the usual way assigns.
        for values in state if isinstance(state, tuple) else (state,):
            for name, value in (values or {}).items():
                object.__setattr__(self, name, value)


_SLOTS = tuple(f"_{field}" for field in Event.__match_args__)


def _written_once(field: str) -> property:
    """A field that is set by the first who writes it: a constructor, a derived dataclass' one too.

    This is how an event is frozen: with the ``__setattr__`` of a frozen dataclass its constructor
    would take twice as long.
    """
    slot = Event.__dict__[f"_{field}"]

    def write(event: Event, value: object) -> None:
        if hasattr(event, slot.__name__):
            raise FrozenInstanceError(f"cannot assign to field {field!r}")
        slot.__set__(event, value)

    def delete(event: Event) -> None:  # noqa: ARG001  # the signature of a property's
        raise FrozenInstanceError(f"cannot delete field {field!r}")

    return property(attrgetter(slot.__name__), write, delete)


for _field in Event.__match_args__:
    setattr(Event, _field, _written_once(_field))
del Event.__setattr__, Event.__delattr__


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
