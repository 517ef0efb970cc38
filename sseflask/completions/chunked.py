"""The chunked coding of an HTTP/1.1 body, taken apart by one regular expression. No I/O.

After RFC 9112, section 7.1. The client's own parser makes an event of every chunk, in several steps
that cost more than all else that is done with a token here.
"""

from __future__ import annotations

import re

__all__ = ["Dechunker"]

# A chunk's line end is read together with the next chunk's head.
_LINE_END = b"\r\n"
_HEAD = re.compile(rb"\r\n([0-9A-Fa-f]{1,15})(?:;[^\r\n]*|[ \t]*)\r\n")

#: Bytes that a chunk's head may have.
_MOST_HEAD = 16_384


class Dechunker:
    """Takes the chunks of one body apart, in whatever pieces they arrive. Never blocks.

    Attributes:
        stopped: what comes next is no chunk with data: the last one, or none at all.
    """

    def __init__(self) -> None:
        self.stopped = False
        self._rest = _LINE_END  # as if a chunk had ended
        self._left = 0

    def feed(self, piece: bytes) -> bytes:
        """Take in the next bytes, and give the data that is in them; not once it has `stopped`."""
        piece = self._rest + piece
        end = self._left
        found = [piece[:end]] if end else []
        while head := _HEAD.match(piece, end):
            size = int(head[1], 16)
            if not size:
                self.stopped = True
                break
            end = head.end() + size
            found.append(piece[head.end() : end])
        self._rest = rest = piece[end:]
        self._left = max(0, end - len(piece))
        if rest != _LINE_END and rest:
            self.stopped = self.stopped or not _may_become_head(rest)
        return found[0] if len(found) == 1 else b"".join(found)

    @property
    def rest(self) -> bytes:
        """What has arrived and is not in what `feed` gave, for a parser that awaits a chunk's head.

        It begins with a line end, which is none, where a chunk has not ended with one.
        """
        if not self._rest or self._rest.startswith(_LINE_END):
            return self._rest[2:]
        return _LINE_END + self._rest


def _may_become_head(rest: bytes) -> bool:
    if len(rest) < len(_LINE_END):
        return _LINE_END.startswith(rest)
    return rest.startswith(_LINE_END) and b"\n" not in rest[2:] and len(rest) <= _MOST_HEAD
