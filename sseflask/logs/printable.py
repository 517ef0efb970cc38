"""Text of strangers made safe for a log: it ends no line and steers no terminal."""

from __future__ import annotations

import json
import traceback
from collections.abc import Generator
from typing import Any

#: Characters of a traceback in a log.
LONGEST_TRACEBACK = 1 << 15


def from_wsgi(text: str) -> str:
    """The text whose UTF-8 bytes are the characters of WSGI's text (PEP 3333)."""
    return text.encode("latin-1", "replace").decode(errors="replace")


def printable(text: str) -> str:
    r"""Escape all characters that are not printable, as JSON does.

    These are line breaks of all kinds (U+2028), control characters, marks that change the
    direction of writing, and lone surrogates.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else _escape(each) for each in text)


def _escape(character: str) -> str:
    escaped = json.dumps(character)[1:-1]
    return escaped if len(escaped) > 1 else f"\\u{ord(character):04x}"  # JSON does not escape DEL


def shorten(text: str, most: int) -> str:
    """Leave the middle out of a text of more than ``most`` characters."""
    if len(text) <= most:
        return text
    head, tail = most * 3 // 4, most // 4
    return f"{text[:head]}... ({len(text) - head - tail} characters) ...{text[-tail:]}"


def shorten_lines(text: str, most: int) -> str:
    """Leave lines in the middle out of a text of more than ``most`` characters."""
    if len(text) <= most:
        return text
    # Whole lines: half a secret would not be recognised.
    head = text[: most * 3 // 4].rpartition("\n")[0]
    tail = text[-most // 4 :].partition("\n")[2]
    return f"{head}\n... ({len(text) - len(head) - len(tail)} characters) ...\n{tail}"


def format_traceback(raised: Any) -> str:
    """The traceback of a ``sys.exc_info()``, in which each exception's text takes one line."""
    kind, error, where = raised
    if kind is None or error is None:
        return "NoneType: None"  # logged outside of an except
    top = traceback.TracebackException(kind, error, where)
    waiting = [top]
    while waiting:
        each = waiting.pop()
        each.__class__ = _OneLine  # the base class makes those of causes
        others = (each.__cause__, each.__context__, *(getattr(each, "exceptions", None) or ()))
        waiting.extend(other for other in others if other is not None)
    return "".join(top.format()).rstrip("\n")


class _OneLine(traceback.TracebackException):
    """A traceback in which only the name of an exception's class begins a line."""

    def format_exception_only(self, **options: Any) -> Generator[str, None, None]:
        named = False
        for part in super().format_exception_only(**options):
            text = part.rstrip("\n")
            # Notes (PEP 678) are separate lines, with any content.
            outside = not text.startswith(" ")
            yield f"{'    ' if outside and named else ''}{printable(text)}\n"
            named = named or outside
