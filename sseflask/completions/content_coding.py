"""Bodies that an upstream has compressed, although it was asked not to. No I/O of its own.

The client knows these codings too, but ends with the first of several members (RFC 1952, section
2.2), which are one body for `fetch` and for curl.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import httpx2

__all__ = ["decode"]

_GZIP, _DEFLATE = "gzip", "deflate"
#: RFC 9110, section 8.4.1.3: x-gzip is gzip.
_NAMES = {_GZIP: _GZIP, "x-gzip": _GZIP, _DEFLATE: _DEFLATE}

#: Bytes that are decompressed at once: a little may become a thousand times as much.
_AT_ONCE = 262_144


def decode(response: httpx2.Response) -> None:
    """Before a response is read: have its body decompressed, if it is gzip or deflate all through.

    Everything else is left to the client. What can't be decompressed raises `httpx2.DecodingError`.
    """
    given = response.headers.get("Content-Encoding", "").lower().split(",")
    codings = [name for each in given if (name := each.strip()) not in ("", "identity")]
    if isinstance(response.stream, httpx2.SyncByteStream) and all(map(_NAMES.get, codings)):
        if codings:
            codings = [_NAMES[name] for name in reversed(codings)]
            response.stream = _Decoded(response.stream, codings)
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
    first, full, pending = True, False, b""
    for piece in pieces:
        pending += piece
        while full or len(pending) >= (2 if member is None else 1):
            if member is None:
                if not first and not _BEGINS[coding](pending):
                    return  # filled up, with zeros for example, which all readers pass over
                member = zlib.decompressobj(_format(coding, pending))
                first = False
            try:
                data = member.decompress(pending, _AT_ONCE)
            except zlib.error as error:
                raise httpx2.DecodingError(str(error)) from error
            pending = member.unused_data if member.eof else member.unconsumed_tail
            full = len(data) == _AT_ONCE and not member.eof  # there may be more without a byte more
            if member.eof:
                member = None
            if data:
                yield data


def _format(coding: str, beginning: bytes) -> int:
    if coding == _GZIP:
        return zlib.MAX_WBITS | 16
    # Some servers mean the bare format (RFC 9110, section 8.4.1.2).
    return zlib.MAX_WBITS if _is_zlib(beginning) else -zlib.MAX_WBITS


def _is_zlib(data: bytes) -> bool:
    """Whether it begins as RFC 1950, section 2.2 has it."""
    return data[0] & 0x0F == 8 and (data[0] << 8 | data[1]) % 31 == 0


_BEGINS: dict[str, Callable[[bytes], bool]] = {
    _GZIP: lambda data: data.startswith(b"\x1f\x8b"),
    _DEFLATE: _is_zlib,
}
