"""As much of HTTP/1.1 as the load takes: responses in chunks, of a known length, or to the end."""

from __future__ import annotations

_LINE_END = b"\r\n"
_LONGEST_HEAD = 65536
_LONGEST_CHUNK_LINE = 18


class BadResponse(Exception):
    """The server sent what is no HTTP/1.1 response, or one that this client can't read."""


def get(path: str, port: int, last_id: str = "") -> bytes:
    """Give the bytes of a GET request for an event stream, which may go on after an event."""
    again = f"Last-Event-ID: {last_id}\r\n" if last_id else ""
    return (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: text/event-stream\r\n{again}\r\n"
    ).encode()


def post(path: str, port: int, body: bytes, kind: str = "text/plain", key: str = "") -> bytes:
    """Give the bytes of a POST request whose connection stays open.

    `key`: an Idempotency-Key, for a request that may be sent again.
    """
    once = f"Idempotency-Key: {key}\r\n" if key else ""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\n{once}\r\n"
    )
    return head.encode() + body


class ResponseReader:
    """Takes a response's bytes as they come, cut anywhere, and gives its body's.

    `status` is 0 until the head is there. `ended` becomes true at a proper last chunk or after as
    many bytes as the head announced (`framed` either way): any other body ends with its connection.
    """

    __slots__ = ("_left", "_pending", "chunked", "ended", "framed", "status")

    def __init__(self) -> None:
        self.status = 0
        self.chunked = False
        self.framed = False
        self.ended = False
        self._pending = b""
        self._left = 0

    def feed(self, data: bytes) -> bytes:
        """Give the body bytes in this piece; BadResponse where the framing is broken."""
        if self._pending:
            data = self._pending + data
            self._pending = b""
        if not self.status:
            data = self._head(data)
        if self.chunked:
            return self._chunks(data)
        return self._counted(data) if self.framed else data

    def _head(self, data: bytes) -> bytes:
        end = data.find(_LINE_END * 2)
        if end < 0:
            if len(data) > _LONGEST_HEAD:
                raise BadResponse("no end of the headers")
            self._pending = data
            return b""
        first, *lines = data[:end].split(_LINE_END)
        version, _, rest = first.partition(b" ")
        if not version.startswith(b"HTTP/1.") or not rest[:3].isdigit():
            raise BadResponse(f"no status line: {first[:60]!r}")
        self.status = int(rest[:3])
        for line in lines:
            name, _, value = line.partition(b":")
            if name.lower() == b"transfer-encoding":
                self.chunked = self.framed = value.strip().lower() == b"chunked"
            elif name.lower() == b"content-length" and value.strip().isdigit():
                self.framed = True
                self._left = int(value)
        return data[end + 4 :]

    def _counted(self, data: bytes) -> bytes:
        body = data[: self._left]
        self._left -= len(body)
        self.ended = not self._left
        return body

    def _chunks(self, data: bytes) -> bytes:
        pieces = []
        position = 0
        size = len(data)
        left = self._left
        while position < size and not self.ended:
            if not left:
                end = data.find(_LINE_END, position)
                if end < 0:
                    self._keep(data[position:])
                    break
                length = _chunk_length(data[position:end])
                if not length:
                    self._last_chunk(data[position:], end + 2 - position)
                    break
                position = end + 2
                # A chunk's own line end is counted with it: one number says how much is to come.
                left = length + 2
            stop = position + left
            pieces.append(data[position : max(stop - 2, position)])
            if stop > size:
                left = stop - size
                break
            if left >= 2 and data[stop - 2 : stop] != _LINE_END:
                raise BadResponse(f"no line end after a chunk: {data[stop - 2 : stop]!r}")
            left = 0
            position = stop
        self._left = left
        return b"".join(pieces)

    def _keep(self, rest: bytes) -> None:
        if len(rest) > _LONGEST_CHUNK_LINE:
            raise BadResponse(f"no chunk length: {rest[:60]!r}")
        self._pending = rest

    def _last_chunk(self, data: bytes, length: int) -> None:
        rest = data[length : length + 2]
        if rest == _LINE_END:
            self.ended = True
        elif _LINE_END.startswith(rest):
            self._pending = data
        else:
            raise BadResponse(f"no end after the last chunk: {rest!r}")


def _chunk_length(line: bytes) -> int:
    if not line.isalnum():
        raise BadResponse(f"no chunk length: {line[:60]!r}")
    try:
        return int(line, 16)
    except ValueError:
        raise BadResponse(f"no chunk length: {line[:60]!r}") from None
