"""JSON of a request: the time to parse it is bounded, and other greenlets get their turns."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from sseflask.errors import Failure

#: The most values of one text. The parser takes up to 40 ms for them, in which nothing else runs;
#: 32 MiB of brackets would take 14 s.
MOST_VALUES = 50_000
#: The most digits of a whole number: the time for one grows with their square.
MOST_DIGITS = 100

#: Characters that are scanned before others get a turn: less than a millisecond.
_PIECE = 1 << 16
#: Each value but the first follows one of these; arrays and objects begin with one.
_MARKS = ",[{"
_IN_STRING = re.compile(r'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)


def bounded_json(
    content: bytes | str,
    pause: Callable[[], None],
    pairs: Callable[[list[tuple[str, Any]]], Any] | None = None,
) -> Any:
    """The value of an untrusted JSON text.

    Args:
        pause: called after each millisecond or so of work, to yield to other greenlets.
        pairs: `json.loads`'s ``object_pairs_hook``.

    Raises:
        Failure: 413 for too many values, 400 for a whole number of too many digits.
        ValueError: it is not JSON.
        RecursionError: it is nested too deeply.
    """
    if isinstance(content, bytes):
        content = content.decode(json.detect_encoding(content))
        pause()
    _check_values(content, pause)
    value = json.loads(content, object_pairs_hook=pairs, parse_int=_whole)
    pause()
    return value


def _check_values(text: str, pause: Callable[[], None]) -> None:
    found = 0
    for mark in _MARKS:  # first in strings too: fast, and nearly always enough
        found += text.count(mark)
        pause()
    if found <= MOST_VALUES:
        return
    found = strings = at = 0
    inside = False
    while at < len(text):
        end = min(at + _PIECE, len(text))
        if inside:
            at = _end_in_string(text, at, end)
            if text.startswith('"', at):
                inside = False
                at += 1
            elif text.startswith("\\", at):
                at += 2  # the escaped character is in the next piece
        else:
            quote = text.find('"', at, end)
            stop = end if quote < 0 else quote
            for mark in _MARKS:
                found += text.count(mark, at, stop)
            inside = quote >= 0
            strings += inside
            at = stop + inside
        # A value may have two strings: itself and its name.
        if found > MOST_VALUES or strings > 2 * MOST_VALUES:
            raise Failure(
                f"The JSON has more than {MOST_VALUES:,} values, the most that this server reads "
                "in one request, as all other requests wait for it. Send less at once.",
                status=413,
                type="invalid_request_error",
                code="too_many_values",
            )
        pause()


def _end_in_string(text: str, at: int, end: int) -> int:
    match = _IN_STRING.match(text, at, end)
    return at if match is None else match.end()


def _whole(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise Failure(
            f"The JSON has a whole number of more than {MOST_DIGITS} digits: send it as text.",
            status=400,
            type="invalid_request_error",
            code="invalid_json",
        )
    return int(digits)
