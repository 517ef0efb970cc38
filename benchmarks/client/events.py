"""As much of the event stream format as counting takes: ids and data of the events, in order."""

from __future__ import annotations

from typing import NamedTuple


class Received(NamedTuple):
    """An event that has data; `id` is None where it has no id of its own."""

    id: bytes | None
    data: bytes


class EventReader:
    """Takes an event stream's bytes, cut anywhere, and gives the data of each event that has any.

    `rest` is what has come of an event that is not complete yet.
    """

    __slots__ = ("rest",)

    def __init__(self, rest: bytes = b"") -> None:
        self.rest = rest

    def feed(self, piece: bytes) -> list[bytes]:
        """Give the data of the events that this piece completes."""
        found = []
        for block in self._blocks(piece):
            if block.startswith(b"data: ") and b"\n" not in block:
                found.append(block[6:])
            elif (data := _values(block, b"data")) is not None:
                found.append(b"\n".join(data))
        return found

    def feed_with_ids(self, piece: bytes) -> list[Received]:
        """The same with each event's id."""
        found = []
        for block in self._blocks(piece):
            first, _, second = block.partition(b"\n")
            if first.startswith(b"id: ") and second.startswith(b"data: ") and b"\n" not in second:
                found.append(Received(first[4:], second[6:]))
            elif (data := _values(block, b"data")) is not None:
                ids = _values(block, b"id")
                found.append(Received(ids[-1] if ids else None, b"\n".join(data)))
        return found

    def _blocks(self, piece: bytes) -> list[bytes]:
        text = self.rest + piece
        if b"\r" in text:
            # The second half of a line end may come with the next piece.
            whole, late = (text[:-1], b"\r") if text.endswith(b"\r") else (text, b"")
            text = whole.replace(b"\r\n", b"\n").replace(b"\r", b"\n") + late
        *blocks, self.rest = text.split(b"\n\n")
        return blocks


def _values(block: bytes, name: bytes) -> list[bytes] | None:
    """Give the values of an event's fields of this name, None where it has none."""
    fields = (line.partition(b":") for line in block.split(b"\n"))
    return [value.removeprefix(b" ") for field, _, value in fields if field == name] or None
