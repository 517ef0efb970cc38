"""Writes the ``text/event-stream`` format. No Flask, no I/O, no checks: the items make them."""

from __future__ import annotations

import re

__all__ = ["comment_frame", "event_frame", "lines_of"]

_LINE_END = re.compile(r"\r\n|\r|\n")


def lines_of(text: str) -> list[str]:
    """The lines of a text: they end with CR, LF or CRLF and nothing else."""
    if "\r" in text:
        return _LINE_END.split(text)
    return text.split("\n")


def event_frame(data: str | None, event: str | None, id: str | None, retry: int | None) -> bytes:
    """The fields of one event as UTF-8, closed by a blank line; nothing if there are none.

    Raises:
        UnicodeEncodeError: a lone surrogate.
    """
    if data is None:
        text = ""
    elif "\n" in data or "\r" in data:
        text = "".join([f"data: {line}\n" for line in lines_of(data)])
    elif event is None and retry is None and id is not None:
        return f"id: {id}\ndata: {data}\n\n".encode()  # the usual one, in one step
    else:
        text = f"data: {data}\n"
    if event is not None:
        text = f"event: {event}\n{text}"
    if id is not None:
        text = f"id: {id}\n{text}"
    if retry is not None:
        text = f"retry: {retry}\n{text}"
    return f"{text}\n".encode() if text else b""


def comment_frame(text: str) -> bytes:
    """A comment as UTF-8: each line of it is one, closed by its newline."""
    return "".join([f": {line}\n" for line in lines_of(text)]).encode()
