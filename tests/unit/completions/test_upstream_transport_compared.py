"""Whatever an upstream sends, the transport gives what httpx's own gives: but for what follows a
response, which is never the response to the next request."""

from __future__ import annotations

import itertools
import ssl
from collections.abc import Iterator
from typing import Any
from unittest import mock

import httpcore2
import httpx2
from hypothesis import given
from hypothesis import strategies as st

from sseflask.completions.upstream_transport import UpstreamTransport

TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # not used; making one takes a while
SURPLUS = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"


class Scripted(httpcore2.NetworkStream):
    """A connection by which these pieces come, and then its end."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = list(pieces)
        self.closed = False

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002
        data = self.pieces.pop(0) if self.pieces else b""
        if data[max_bytes:]:
            self.pieces.insert(0, data[max_bytes:])
        return data[:max_bytes]

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    def get_extra_info(self, info: str) -> Any:
        return bool(self.pieces) if info == "is_readable" else None


def results_of(transport: httpx2.BaseTransport, connections: list[list[bytes]]) -> list[Any]:
    """What two requests give, and how often connections were opened and closed."""
    opened: list[Scripted] = []

    def connect(*_arguments: Any, **_named: Any) -> Scripted:
        opened.append(Scripted(connections[len(opened)]))
        return opened[-1]

    results: list[Any] = []
    with (
        mock.patch.object(httpcore2.SyncBackend, "connect_tcp", connect),
        httpx2.Client(transport=transport, trust_env=False) as client,
    ):
        for _ in range(2):
            try:
                response = client.get("http://upstream/")
                results.append((response.status_code, response.content))
            except httpx2.HTTPError as error:
                results.append(type(error))
    return [*results, len(opened), [each.closed for each in opened]]


def pieces_of(stream: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(stream), *(min(cut, len(stream)) for cut in cuts)})
    return [stream[start:end] for start, end in itertools.pairwise(edges)]


bodies = st.binary(max_size=60) | st.sampled_from(
    [b"\n\r\n", b"\n\n", b"data: one\n\n", b"0\r\n\r\n"]
)


@st.composite
def responses(draw: st.DrawFn) -> bytes:
    body, end = draw(bodies), draw(st.sampled_from([b"\r\n", b"\n"]))
    status = draw(st.sampled_from([200, 200, 204, 304, 500]))
    framing = draw(st.sampled_from([b"chunked", b"Content-Length: %d" % len(body), b""]))
    if framing == b"chunked":
        framing = b"Transfer-Encoding: chunked"
        chunks = (body[at : at + 7] for at in range(0, len(body), 7))
        sent = b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in chunks)
        body = sent + b"0\r\n" + draw(st.sampled_from([b"", b"Trailer: x\r\n"])) + b"\r\n"
    head = [b"HTTP/1.1 %d OK" % status, b"X: y", *([framing] if framing else [])]
    if draw(st.booleans()):
        head.append(b"Connection: close")
    early = draw(st.sampled_from([b"", b"HTTP/1.1 103 Early" + end + end]))
    return early + end.join(head) + end + end + (b"" if status in (204, 304) else body)


@st.composite
def connections(draw: st.DrawFn) -> list[list[bytes]]:
    """Two of them, each with a response that may break off."""

    def each() -> Iterator[list[bytes]]:
        for _ in range(2):
            stream = draw(responses())
            length = draw(st.none() | st.integers(0, len(stream)))
            yield pieces_of(stream[:length], draw(st.lists(st.integers(0, 200), max_size=6)))

    return list(each())


@given(connections())
def test_the_same_as_httpx_gives(those: list[list[bytes]]) -> None:
    assert results_of(UpstreamTransport(), those) == results_of(
        httpx2.HTTPTransport(verify=TLS), those
    )


@given(st.tuples(responses(), responses()), st.booleans())
def test_what_follows_a_response_answers_nothing(sent: tuple[bytes, bytes], cut: bool) -> None:
    those = [[each, SURPLUS] if cut else [each + SURPLUS] for each in sent]
    assert (200, b"evil") not in results_of(UpstreamTransport(), those)
