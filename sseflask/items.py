"""The items that an application may yield, as bytes."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from types import GeneratorType
from typing import Any

from flask import Flask

from sseflask.errors import EventError
from sseflask.event import Comment, Event
from sseflask.json_text import json_text
from sseflask.logs.once import warn_once
from sseflask.wire import encode

__all__ = ["check_iterable", "encode_item", "encode_piece", "has_events"]

#: What streams nearly always are: all checks of an iterable take longer than the response's rest.
_USUAL = (GeneratorType,)

_FIELDS = ("data:", "event:", "id:", "retry:", ":")


def encode_item(app: Flask | None, item: Any) -> bytes:
    """The bytes of an item of an `EventSourceResponse`.

    Args:
        app: the application whose JSON provider is used; ``None`` for the current one.
        item: the item.

    Raises:
        EventError: it can't be sent.
    """
    if isinstance(item, str):
        if "\n" in item or "\r" in item or item.__class__ is not str:
            if item.endswith("\n\n") and item.startswith(_FIELDS):
                _warn_about_frame()
            return encode(Event(item))
        try:
            return f"data: {item}\n\n".encode()
        except UnicodeEncodeError:
            return encode(Event(item))  # its error explains
    if isinstance(item, (Event, Comment)):
        return encode(item)
    if isinstance(item, (bytes, bytearray, memoryview)):
        return bytes(item)
    try:
        data = json_text(item, app and app.json)
    except EventError as error:
        if inspect.iscoroutine(item):
            item.close()  # without it Python warns that it was never awaited
        raise EventError(
            f"a stream can't send a {type(item).__name__}: yield Event, Comment, text, bytes "
            f"(ready-made frames) or a value that can be JSON ({error})"
        ) from error
    return encode(Event(data))


def encode_piece(piece: Any) -> bytes:
    """The bytes of a piece of a plain ``Response``.

    Raises:
        EventError: it can't be sent.
    """
    if isinstance(piece, str):
        return piece.encode()
    if isinstance(piece, (Event, Comment)):
        return encode(piece)
    try:
        return bytes(memoryview(piece))
    except TypeError:
        raise EventError(
            f"a plain Response can't send a {type(piece).__name__}: yield text or bytes "
            "(ready-made frames), Event or Comment; EventSourceResponse sends JSON too"
        ) from None


def has_events(pieces: object) -> bool:
    """Whether the list of a plain ``Response`` has events, which Flask itself can't send."""
    return isinstance(pieces, (list, tuple)) and any(
        isinstance(piece, (Event, Comment)) for piece in pieces
    )


def _warn_about_frame() -> None:
    warn_once(
        "A text that looks like a ready-made frame ('data: ...' and a blank line) was yielded to "
        "an EventSourceResponse, which sends texts as data: clients get the field names too. Yield "
        "the data alone or an Event; or bytes, which are sent as they are."
    )


def check_iterable(events: object) -> None:
    """Refuse a value that can't be a stream.

    Raises:
        TypeError: it is not a synchronous iterable of items.
    """
    if type(events) in _USUAL and not inspect.isawaitable(events):
        return
    if hasattr(events, "__aiter__") or inspect.isawaitable(events):
        if inspect.iscoroutine(events):
            events.close()  # without it Python warns that it was never awaited
        raise TypeError(
            f"events is asynchronous ({type(events).__name__}); sseflask streams synchronous "
            "iterables: write a plain generator, gevent makes its blocking calls cooperative"
        )
    if callable(events) and not isinstance(events, Iterable):
        name = getattr(events, "__name__", "it")
        raise TypeError(
            f"events must be an iterable of events, not a single {type(events).__name__}: call "
            f"{name}() and pass the generator that it gives"
        )
    if isinstance(events, (str, bytes, bytearray, Mapping, Event, Comment)) or not isinstance(
        events, Iterable
    ):
        raise TypeError(
            f"events must be an iterable of events, not a single {type(events).__name__}: "
            "pass a generator or a list"
        )
