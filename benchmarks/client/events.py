"""As much of the event stream format as counting takes: the data of each event, in order."""

from __future__ import annotations


class EventReader:
    """Takes an event stream's bytes, cut anywhere, and gives the data of each event that has any.

    `rest` is what has come of an event that is not complete yet.
    """

    __slots__ = ("rest",)

    def __init__(self, rest: bytes = b"") -> None:
        self.rest = rest

    def feed(self, piece: bytes) -> list[bytes]:
        """Give the data of the events that this piece completes."""
        text = self.rest + piece
        if b"\r" in text:
            # The second half of a line end may come with the next piece.
            whole, late = (text[:-1], b"\r") if text.endswith(b"\r") else (text, b"")
            text = whole.replace(b"\r\n", b"\n").replace(b"\r", b"\n") + late
        *blocks, self.rest = text.split(b"\n\n")
        found = []
        for block in blocks:
            if block.startswith(b"data: ") and b"\n" not in block:
                found.append(block[6:])
                continue
            lines = [
                line[5:].removeprefix(b" ")
                for line in block.split(b"\n")
                if line.startswith(b"data:") or line == b"data"
            ]
            if lines:
                found.append(b"\n".join(lines))
        return found
