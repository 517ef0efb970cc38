"""A request body of which the transport has read the beginning already."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from _typeshed.wsgi import InputStream


class Continued(io.RawIOBase):
    """What was read, then the rest from where it comes. Blocks like that source.

    Args:
        begin: the bytes that were read.
        source: the server's ``wsgi.input``.
    """

    def __init__(self, begin: bytes, source: InputStream) -> None:
        super().__init__()
        self._begin = begin
        self._source = source

    def readable(self) -> bool:
        """It is for reading."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill the buffer as far as the next piece goes; 0 at the end."""
        view = memoryview(buffer).cast("B")
        if self._begin:
            piece, self._begin = self._begin[: len(view)], self._begin[len(view) :]
        else:
            piece = self._source.read(len(view))
        view[: len(piece)] = piece
        return len(piece)
