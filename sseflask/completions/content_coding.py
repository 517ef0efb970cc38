"""Bodies that an upstream has compressed, although it was asked not to. No I/O of its own.

httpx knows these codings too, but ends with the first of several members (RFC 1952, section 2.2),
which are one body for `fetch` and for curl.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import httpx2

__all__ = ["decode"]

#: RFC 9110, section 8.4.1.3: x-gzip is gzip.
_CODINGS = ("gzip", "x-gzip", "deflate")
#: Bytes that are decompressed at once: a little may become a thousand times as much.
_MAX_PIECE = 262_144
_GZIP_MAGIC, _GZIP_OR_ZLIB = b"\x1f\x8b", zlib.MAX_WBITS | 32


def decode(response: httpx2.Response) -> None:
    """Have a response's body decompressed if all its codings are gzip or deflate.

    To be called before the body is read. Other codings are left to httpx. Reading what can't be
    decompressed raises `httpx2.DecodingError`.
    """
    given = response.headers.get("Content-Encoding", "").lower().split(",")
    codings = [name for each in given if (name := each.strip()) not in ("", "identity")]
    if isinstance(response.stream, httpx2.SyncByteStream) and set(codings) <= set(_CODINGS):
        if codings:
            response.stream = _Decoded(response.stream, codings[::-1])
        response.headers.pop("Content-Encoding", None)


class _Decoded(httpx2.SyncByteStream):
    def __init__(self, stream: httpx2.SyncByteStream, codings: list[str]) -> None:
        self._stream = stream
        self._codings = codings

    def __iter__(self) -> Iterator[bytes]:
        pieces: Iterable[bytes] = self._stream
        for coding in self._codings:
            pieces = _inflate(pieces, coding)
        yield from pieces

    def close(self) -> None:
        self._stream.close()


def _inflate(pieces: Iterable[bytes], coding: str) -> Iterator[bytes]:
    member: Any = None
    first, more, pending = True, False, b""
    for piece in pieces:
        pending += piece
        while more or len(pending) >= (2 if member is None else 1):
            if member is None:
                begins = pending.startswith(_GZIP_MAGIC) or _is_zlib(pending)
                if not first and not begins:
                    return  # filled up, with zeros for example, which all readers pass over
                # Some servers mean the bare format by deflate (RFC 9110, section 8.4.1.2).
                bare = coding == "deflate" and not begins
                member = zlib.decompressobj(-zlib.MAX_WBITS if bare else _GZIP_OR_ZLIB)
                first = False
            try:
                data = member.decompress(pending, _MAX_PIECE)
            except zlib.error as error:
                raise httpx2.DecodingError(str(error)) from error
            pending = member.unused_data if member.eof else member.unconsumed_tail
            more = len(data) == _MAX_PIECE and not member.eof  # perhaps, without a byte of input
            if member.eof:
                member = None
            if data:
                yield data


def _is_zlib(data: bytes) -> bool:
    """Whether it begins with the header of RFC 1950, section 2.2."""
    return data[0] & 0x0F == 8 and (data[0] << 8 | data[1]) % 31 == 0
