"""The chunked coding of an HTTP/1.1 body (RFC 9112, section 7.1), decoded by one expression."""

from __future__ import annotations

import re

import httpx2

# The line end of a chunk is read together with the next chunk's head. Some servers write a bare LF.
_LINE_END = b"\r\n"
_HEAD = re.compile(rb"\r?\n([0-9A-Fa-f]{1,64})[ \t]*(?:;[^\n]*)?\r?\n")
_LINE_ENDS = (b"", b"\r", b"\n", _LINE_END)
_LAST = b"0\r\n"

#: Bytes that a chunk's head may have.
_MAX_HEAD = 16_384


class BrokenChunks(httpx2.RemoteProtocolError):
    """The bytes at the place of a chunk's head are no such head."""


class Dechunker:
    """Decodes the chunks of one body, in whatever pieces they arrive.

    Attributes:
        stopped: there is no further chunk with data: the next one is the last, or is invalid.
    """

    def __init__(self) -> None:
        self.stopped = False
        self._rest = _LINE_END  # as if a chunk had ended
        self._left = 0
        self._broken = False

    def feed(self, piece: bytes) -> bytes:
        """Give the data in the next bytes. Not to be called once it has `stopped`."""
        piece = self._rest + piece
        end = self._left
        found = [piece[:end]] if end else []
        while head := _HEAD.match(piece, end):
            size = int(head[1], 16)
            if not size:
                self.stopped = True
                self._rest = _LAST + piece[head.end() :]
                return b"".join(found)
            end = head.end() + size
            found.append(piece[head.end() : end])
        self._rest = rest = piece[end:]
        self._left = max(0, end - len(piece))
        if rest not in _LINE_ENDS and not _may_become_head(rest):
            self.stopped = self._broken = True
        return found[0] if len(found) == 1 else b"".join(found)

    def rest(self) -> bytes:
        """The last chunk with CRLF, as strict parsers want it, and what has come after it."""
        if self._broken:
            raise BrokenChunks(f"no chunk begins with {self._rest.lstrip()[:20]!r}")
        return self._rest if self.stopped else b""


def _may_become_head(rest: bytes) -> bool:
    start = rest.removeprefix(b"\r")
    return start.startswith(b"\n") and b"\n" not in start[1:] and len(start) <= _MAX_HEAD
