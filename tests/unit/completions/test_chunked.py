from __future__ import annotations

import itertools

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sseflask.completions.chunked import BrokenChunks, Dechunker

LAST = b"0\r\n\r\n"


def feed(*pieces: bytes) -> tuple[bytes, Dechunker]:
    """All that is given of the pieces, up to the one with which it stopped; what follows it."""
    chunks = Dechunker()
    given = b""
    left = list(pieces)
    while left and not chunks.stopped:
        given += chunks.feed(left.pop(0))
    return given, chunks


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


def by_h11(stream: bytes) -> bytes:
    """What the client's own parser makes of a body."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="GET", target="/", headers=[("Host", "here")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + stream)
    body = b""
    while (event := connection.next_event()) is not h11.NEED_DATA:
        if isinstance(event, h11.EndOfMessage):
            break
        if isinstance(event, h11.Data):
            body += event.data
    return body


chunks = st.builds(
    lambda data, zeros, upper, extension: (
        (b"0" * zeros)
        + (b"%X" if upper else b"%x") % len(data)
        + extension
        + b"\r\n"
        + data
        + b"\r\n"
    ),
    st.binary(min_size=1, max_size=40) | st.sampled_from([b"\r\n", b"0\r\n\r\n", b"\r\n5\r\n"]),
    st.integers(0, 3),
    st.booleans(),
    st.sampled_from([b"", b" ", b"\t", b";a", b'; name="val;ue" ']),
)


@given(st.lists(chunks, max_size=6), st.booleans(), st.lists(st.integers(0, 300), max_size=8))
def test_in_whatever_pieces(sent: list[bytes], ends: bool, cuts: list[int]) -> None:
    stream = b"".join(sent) + (LAST if ends else b"")
    data, found = feed(*pieces_of(stream, cuts))
    assert data == by_h11(stream)
    assert found.stopped == ends
    if found.stopped:
        assert LAST.startswith(found.rest())
        assert found.rest()


def test_each_byte_of_data_is_given_when_it_is_there() -> None:
    chunks = Dechunker()
    assert chunks.feed(b"5\r\nab") == b"ab"
    assert chunks.feed(b"c") == b"c"
    assert chunks.feed(b"de") == b"de"
    assert chunks.feed(b"\r") == b""
    assert chunks.feed(b"\n1\r\nf\r\n2\r\ngh\r\n3") == b"fgh"
    assert chunks.feed(b"\r\nijk\r\n") == b"ijk"
    assert not chunks.stopped


def test_a_chunk_of_a_mebibyte() -> None:
    data = bytes(range(256)) * 4096
    stream = b"%x\r\n%b\r\n" % (len(data), data)
    pieces = [stream[start : start + 65_536] for start in range(0, len(stream), 65_536)]
    given, chunks = feed(*pieces)
    assert given == data
    assert not chunks.stopped


@pytest.mark.parametrize(
    "rest", [LAST, b"0\r\nTrailer: x\r\n\r\n", b"0\r\n", LAST + b"HTTP/1.1 200 OK\r\n"]
)
@pytest.mark.parametrize(
    "head", [b"0\r\n", b"000;x\r\n", b"0\n", b"0000000000000000000000 ; a=b\n"]
)
def test_the_last_chunk_and_what_follows_is_left(head: bytes, rest: bytes) -> None:
    given, chunks = feed(b"3\r\nabc\r\n" + head + rest[3:])
    assert (given, chunks.stopped, chunks.rest()) == (b"abc", True, rest)


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("head_end", [b"\n", b"\r\n", b" \n", b";a=b\n", b" ; a\r\n"])
@pytest.mark.parametrize("size", [b"1A", b"1a", b"00000000000000000000000000000001a"])
def test_spellings_of_a_chunk(size: bytes, head_end: bytes, end: bytes) -> None:
    stream = (size + head_end + b"x" * 26 + end) * 2 + b"0" + head_end + end
    for pieces in ((stream,), [stream[at : at + 1] for at in range(len(stream))]):
        given, chunks = feed(*pieces)
        assert (given, chunks.stopped) == (b"x" * 52, True)
    assert by_h11(chunks.rest() + end) == b""


@pytest.mark.parametrize(
    "rest",
    [
        b"x\r\n",
        b"\r\n",
        b"-1\r\na\r\n",
        b"+1\r\na\r\n",
        b"0x1\r\na\r\n",
        b"1_0\r\n",
        b" 1\r\na\r\n",
        b"x\n",
        b"\n",
        b"1\ra\n",
        b";x\r\n",
        b"f" * 65 + b"\r\n",
        b"5" * 17_000,
    ],
)
def test_what_is_no_chunk_is_an_error_at_once(rest: bytes) -> None:
    given, chunks = feed(b"3\r\nabc\r\n" + rest)
    assert (given, chunks.stopped) == (b"abc", True)
    with pytest.raises(BrokenChunks):
        chunks.rest()


@pytest.mark.parametrize("end", [b"xy", b"\rx", b"\n\n", b"4\r\nabcd\r\n"])
def test_a_chunk_that_is_longer_than_it_says(end: bytes) -> None:
    given, chunks = feed(b"3\r\nabc" + end)
    assert (given, chunks.stopped) == (b"abc", True)
    with pytest.raises(BrokenChunks):
        chunks.rest()


def test_what_may_still_become_a_head() -> None:
    for rest in (b"", b"\r", b"\r\n", b"\r\n1", b"\r\n1f;ext", b"\r\n1f\r"):
        given, chunks = feed(b"3\r\nabc" + rest)
        assert (given, chunks.stopped) == (b"abc", False)


@pytest.mark.timeout(20)  # a parser that looks back takes minutes
@pytest.mark.parametrize("filler", [b" ", b"\t", b";", b"0"])
def test_a_head_of_blanks_holds_nobody_up(filler: bytes) -> None:
    given, chunks = feed(b"3\r\nabc\r\n5;" + filler * 400_000)
    assert (given, chunks.stopped) == (b"abc", True)
    head = b"3;" + filler * 16_000
    # Each piece has the whole head looked at again, which is bounded and no more than that.
    begun = [head[at : at + 1] for at in range(2_000)]
    pieces = [head[at : at + 50] for at in range(2_000, len(head), 50)]
    given, chunks = feed(*begun, *pieces, b"\r\n", b"abc")
    assert given == b"abc"
