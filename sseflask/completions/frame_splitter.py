"""Splits an upstream's event stream into frames, byte for byte, and reads a frame. No I/O."""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic_core import from_json

# A frame ends with a blank line: two line ends, each CR, LF or CRLF. A CR at the very end of what
# has arrived may be the first half of a CRLF, so it only counts with a byte behind it.
_END = re.compile(rb"\n\n|\n\r\n|\r\r\n|[\n\r]\r(?=[^\n])")
# A CR at the very end counts if the line before ended with a bare CR too: the stream uses CR. To
# wait for a byte behind it would hold every frame back until the next one comes.
_END_OF_CR_STREAM = re.compile(rb"\r\r\Z")
_LINE = re.compile(rb"[^\r\n]*(?:\r\n|\r|\n)")
_NOT_RELAYED = re.compile(rb":|(?:id|retry)[:\r\n]")
_BOM = b"\xef\xbb\xbf"

#: Lines that a text keeps; with more its frame could take a hundred times its size.
_MAX_LINES = 100_000
_SPACES = bytes.maketrans(b"\r\n", b"  ")

#: Carriage return as a number, which is found in a fifth of the time.
CR = 13


class FrameTooLong(ValueError):
    """A frame exceeds the limit."""


class FrameSplitter:
    """Splits bytes, in whatever pieces they arrive, into the frames of one stream.

    Line ends after the WHATWG HTML standard, section 9.2.5. A byte order mark at the start and
    blank lines between frames are dropped, all else is kept as it is. The limit is in bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._searched = 0
        self._at_start = True

    def feed(self, piece: bytes) -> list[bytes]:
        """Give the frames that the next bytes complete, each with its blank line."""
        if (
            not self._buffer
            and not self._at_start
            and piece.endswith(b"\n\n")
            and len(piece) <= self._limit
            and CR not in piece
        ):
            # Nearly every read of nearly every upstream: complete frames, mostly exactly one.
            if piece.find(b"\n") == len(piece) - 2 > 0:
                return [piece]
            parts = [part.lstrip(b"\n") for part in piece.split(b"\n\n")]
            return [part + b"\n\n" for part in parts if part]
        buffer = self._buffer
        buffer += piece
        if self._at_start:
            if len(buffer) < len(_BOM) and _BOM.startswith(buffer):
                return []
            self._at_start = False
            if buffer.startswith(_BOM):
                del buffer[: len(_BOM)]
        frames = []
        start, search_from = 0, self._searched
        while True:
            found = _END.search(buffer, search_from) or _END_OF_CR_STREAM.search(
                buffer, max(search_from, len(buffer) - 2)
            )
            if found is None:
                break
            frame = bytes(buffer[start : found.end()]).lstrip(b"\r\n")
            start = search_from = found.end()
            if len(frame) > self._limit:
                raise FrameTooLong
            if frame:
                frames.append(frame)
        if start:
            del buffer[:start]
        if len(buffer) > self._limit:
            raise FrameTooLong
        # An end that is cut in two begins at most two bytes before the cut.
        self._searched = max(0, len(buffer) - 2)
        return frames

    @property
    def rest(self) -> bytes:
        return bytes(self._buffer)


def fields(frame: bytes) -> tuple[bytes, bytes | None]:
    """A frame's event type (empty when it has none) and its data, ``None`` without a data field."""
    event, data = b"", []
    for line in frame.splitlines():  # of bytes: at CR, LF and CRLF only
        name, _, value = line.partition(b":")
        if name == b"data":
            data.append(value.removeprefix(b" "))
        elif name == b"event":
            event = value.removeprefix(b" ")
    return event, b"\n".join(data) if data else None


def stripped(frame: bytes) -> bytes:
    """The frame without comments, ``id`` and ``retry``, which are about the upstream's stream."""
    kept: list[bytes] = []
    for line in _LINE.findall(frame):
        if _NOT_RELAYED.match(line):
            continue
        if line == b"\n" and kept and kept[-1].endswith(b"\r"):
            # The line between the two is gone, and together they would end only one line.
            kept.append(b"\n")
        kept.append(line)
    return b"".join(kept)


def is_plain(frame: bytes) -> bool:
    """Whether the frame is one line ``data: {...}`` and nothing else, as nearly all frames are."""
    return frame.startswith(b"data: {") and frame.find(b"\n") == len(frame) - 2 and CR not in frame


def message(frame: bytes) -> tuple[bytes, Any]:
    """A frame's event type, and its data read as JSON; ``None`` if it has no data or no JSON."""
    if is_plain(frame):
        event, data = b"", frame[6:]
    else:
        event, given = fields(frame)
        data = given or b"null"
    try:
        return event, read_json(data)
    except ValueError:
        return event, None


def read_json(data: bytes) -> Any:
    """The value that a JSON text spells.

    A string in it may hold half a surrogate pair: JSON can spell an emoji as two escapes, and a
    model's pieces may be cut between them. A text that is no JSON, or is nested too deeply, raises
    `ValueError`.
    """
    try:
        return from_json(data)
    except ValueError:
        pass  # it refuses halves of pairs
    try:
        return json.loads(data.decode())
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def is_json(data: bytes) -> bool:
    """Whether a text that `read_json` reads is JSON to the letter, without NaN and Infinity."""
    try:
        json.loads(data.decode(errors="replace"), parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def without_nan(value: Any) -> Any:
    """A value with null for each number that JSON can't spell."""
    return json.loads(json.dumps(value), parse_constant=lambda _: None)


def text_frame(text: bytes) -> bytes:
    """A frame with a text of JSON, which can be read byte for byte if it has not too many lines."""
    # In JSON a line end is nothing but space, so it does not matter which one it was.
    if text.count(b"\n") + text.count(b"\r") > _MAX_LINES:
        text = text.translate(_SPACES)
    lines = text.splitlines()
    if text.endswith((b"\n", b"\r")):
        lines.append(b"")
    return b"".join([*(b"data: %b\n" % line for line in lines), b"\n"])


def data_frame(value: Any) -> bytes:
    """A frame with a value of JSON."""
    return b"data: %b\n\n" % json.dumps(value, separators=(",", ":")).encode()


def repaired(frame: bytes, data: bytes) -> tuple[bytes, dict[str, Any] | None]:
    """A frame and its object, also if the data is not quite JSON; ``None`` if it is no object.

    Bytes that are no UTF-8 become marks, as for a reader in JavaScript. NaN and Infinity, which can
    be in logprobs, become null: JavaScript would read nothing of such a frame.
    """
    value = _object(data)
    if value is None:
        value = _object(data.decode(errors="replace").encode())
        frame = frame.decode(errors="replace").encode()
    if value is not None and (b"NaN" in data or b"Infinity" in data) and not is_json(data):
        value = without_nan(value)
        event = fields(frame)[0]
        frame = (b"event: %b\n" % event if event else b"") + data_frame(value)
    return frame, value


def _object(data: bytes) -> dict[str, Any] | None:
    try:
        value = read_json(data)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
