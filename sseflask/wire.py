"""The ``text/event-stream`` format, both ways. No Flask, no I/O.

After the WHATWG HTML standard, section 9.2 "Server-sent events": lines end with CR, LF or CRLF
and nothing else (U+2028 is an ordinary character), and a blank line dispatches.
"""

from __future__ import annotations

import codecs
import re

from sseflask.event import Comment, Event, MessageEvent
from sseflask.frame import comment_frame, event_frame, lines_of

__all__ = [
    "HEARTBEAT",
    "Decoder",
    "encode",
    "ends_event",
    "ends_line",
    "events_in",
    "tail_of",
]

#: One newline, not two: a blank line after an ``id`` makes some clients dispatch an empty event
#: (openai-python raises JSONDecodeError). It may stand wherever a line begins.
HEARTBEAT = b": ping\n"

_ENDS_EVENT = re.compile(rb"(?:\r\n|\r|\n)(?:\r\n|\r|\n)\Z")
_DIGITS = re.compile(r"[0-9]+\Z")


def encode(item: Event | Comment) -> bytes:
    """The bytes of one event, closed by its blank line, or of one comment, closed by its newline.

    Args:
        item: the event or comment, whose constructor has checked it.

    Returns:
        UTF-8. An event without any field is the empty string of bytes.

    Raises:
        TypeError: for anything else.
    """
    if isinstance(item, Event):
        try:
            return item._frame
        except AttributeError:  # too large to be kept, or of a derived class
            return event_frame(item.data, item.event, item.id, item.retry)
    if isinstance(item, Comment):
        return comment_frame(item.text)
    raise TypeError(f"only Event and Comment can be encoded, not {type(item).__name__}")


def ends_line(tail: bytes) -> bool:
    """Whether a line may begin after these last bytes of a stream, or at its start.

    Not after CR alone: the next byte may be its LF.
    """
    return not tail or tail.endswith(b"\n")


def ends_event(tail: bytes) -> bool:
    """Whether these last bytes of a stream (four suffice) end an event."""
    return not tail or _ENDS_EVENT.search(tail) is not None


def events_in(frames: bytes) -> int:
    """The number of events in complete frames: their blank lines."""
    events = frames.count(b"\n\n")
    return events + frames.count(b"\n\r\n") if b"\r" in frames else events


def tail_of(tail: bytes, body: bytes | bytearray) -> bytes:
    """The last bytes of a stream, for `ends_line` and `ends_event`, after ``body`` was added."""
    return bytes(body[-4:]) if len(body) >= 4 else (tail + body)[-4:]


class Decoder:
    """Reads an event stream from bytes that may be cut anywhere.

    Not thread-safe: one decoder for one stream. Never blocks. An unfinished last event is
    discarded with the decoder, by the standard.

    Args:
        last_event_id: the last id of the connection before, if the stream is resumed.

    Attributes:
        last_event_id: the id to present as ``Last-Event-ID``, empty if there is none.
        retry: the reconnection time that the stream has set, in milliseconds, or ``None``.
    """

    def __init__(self, last_event_id: str = "") -> None:
        self.last_event_id = last_event_id
        self.retry: int | None = None
        # The standard's "UTF-8 decode": one leading BOM is dropped, invalid bytes become U+FFFD.
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._at_start = True
        self._after_cr = False
        self._pieces: list[str] = []
        self._data: list[str] = []
        self._event = ""
        self._id = last_event_id

    def feed(self, chunk: bytes) -> list[MessageEvent]:
        """Decode the next bytes.

        Args:
            chunk: any number of bytes, from any cut of the stream.

        Returns:
            the events that these bytes complete, in order.
        """
        text = self._utf8.decode(chunk)
        if not text:
            return []
        if self._at_start:
            self._at_start = False
            text = text.removeprefix("\ufeff")
        if self._after_cr and text:
            self._after_cr = False
            text = text.removeprefix("\n")
        if not text:
            return []
        self._after_cr = text.endswith("\r")
        *lines, rest = lines_of(text)
        if lines:
            # A list, so that one long line in small pieces takes linear time.
            self._pieces.append(lines[0])
            lines[0] = "".join(self._pieces)
            self._pieces.clear()
        if rest:
            self._pieces.append(rest)
        dispatched = []
        for line in lines:
            if line:
                self._field(line)
            elif (message := self._dispatch()) is not None:
                dispatched.append(message)
        return dispatched

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id":
            if "\0" not in value:
                self._id = value
        elif name == "retry" and _DIGITS.match(value):
            # The standard allows thousands of digits, and int() does not.
            digits = value.lstrip("0") or "0"
            self.retry = int(digits) if len(digits) <= 18 else 10**18

    def _dispatch(self) -> MessageEvent | None:
        self.last_event_id = self._id
        data, event = self._data, self._event
        self._data, self._event = [], ""
        # The standard's buffer holds an LF for each data line, so that one bare "data" line
        # dispatches an empty text, while no data line dispatches nothing.
        if not data:
            return None
        return MessageEvent("\n".join(data), event or "message", self._id)
