from __future__ import annotations

import math
from typing import Any

import httpcore2
import pytest

from sseflask.completions.chunked import Dechunker
from sseflask.completions.upstream_connection import UpstreamConnection


class Pieces(httpcore2.NetworkStream):
    """A connection by which exactly these pieces come."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)

    def get_extra_info(self, info: str) -> Any:
        return bool(self.pieces) if info == "is_readable" else None

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002
        return self.pieces.pop(0) if self.pieces else b""

    def close(self) -> None:
        self.pieces.clear()


@pytest.mark.parametrize("end", [b"\r\n\r\n", b"\n\n", b"\r\n\n", b"\n\r\n"])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 100])
def test_a_read_goes_to_the_end_of_the_head(end: bytes, size: int) -> None:
    head = b"HTTP/1.1 200 OK" + end
    stream = head + b"5\r\n\n\r\n\n\n\r\n"
    pieces = Pieces(*(stream[at : at + size] for at in range(0, len(stream), size)))
    connection = UpstreamConnection(pieces)
    read = b""
    while len(read) < len(head):
        read += connection.read(65_536)
    assert read == head
    while piece := connection.read(65_536):
        read += piece
    assert read == stream
    assert not connection.get_extra_info("is_readable")
    connection.close()
    assert not pieces.pieces


HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


def connected(*pieces: bytes) -> UpstreamConnection:
    """A connection whose head has been read."""
    connection = UpstreamConnection(Pieces(HEAD + pieces[0], *pieces[1:]))
    assert connection.read(65_536) == HEAD
    return connection


@pytest.mark.parametrize("pieces", [(b"\n\n45\n\n",), (b"", b"\n\n", b"45\n", b"\n")])
def test_a_read_goes_to_the_end_of_a_body_with_a_length(pieces: tuple[bytes, ...]) -> None:
    connection = connected(*pieces)
    connection.body_left = 4
    body = b""
    while len(body) < 4:
        body += connection.read(65_536)
    assert body == b"\n\n45"
    assert connection.read(65_536)[-1:] == b"\n"  # what comes after it is another head


def test_a_body_until_the_connection_ends() -> None:
    connection = connected(b"one\n\n", b"two\n\n")
    connection.body_left = math.inf
    assert list(connection.body(None, {})) == [b"one\n\n", b"two\n\n"]
    assert connection.read(65_536) == b""


def test_the_last_chunk_is_left_and_nothing_behind_it_is_read() -> None:
    connection = connected(b"3\r\none\r\n", b"3\r\ntwo\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n")
    assert list(connection.body(Dechunker(), {})) == [b"one", b"two"]
    assert connection.read(65_536) == b"0\r\n\r\n"
    assert connection.get_extra_info("is_readable")  # so httpcore does not use it again


def test_a_head_has_a_limit() -> None:
    connection = UpstreamConnection(Pieces(*[b"X: x\r\n" * 2_000] * 40))
    for _ in range(21):
        assert connection.read(65_536)
    with pytest.raises(httpcore2.ReadError, match="no end"):
        connection.read(65_536)
