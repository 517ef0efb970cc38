from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sseflask.completions.frame_splitter import (
    FrameSplitter,
    FrameTooLong,
    fields,
    is_plain,
    message,
    read_json,
    stripped,
)
from sseflask.wire import Decoder

END = {"LF": b"\n", "CR": b"\r", "CRLF": b"\r\n"}


def split(*pieces: bytes, limit: int = 1000) -> tuple[list[bytes], bytes]:
    splitter = FrameSplitter(limit)
    return [frame for piece in pieces for frame in splitter.feed(piece)], splitter.rest


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


@pytest.mark.parametrize("end", END.values(), ids=list(END))
@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
def test_each_line_end_cut_anywhere(end: bytes, size: int) -> None:
    wanted = [b"data: one" + end + end, b"event: x" + end + b"data: two" + end + end]
    stream = b"".join(wanted)
    pieces = [stream[start : start + size] for start in range(0, len(stream), size)]
    assert split(*pieces, b"") == (wanted, b"")


@pytest.mark.parametrize("end", END.values(), ids=list(END))
def test_a_frame_is_handed_over_with_its_last_byte(end: bytes) -> None:
    splitter = FrameSplitter(1000)
    for number in range(3):
        whole = b"data: %d" % number + end + end
        # Not with the next frame's first: that one may be a minute away.
        assert splitter.feed(whole) == [whole]


def test_several_frames_in_one_piece() -> None:
    assert split(b"data: 1\n\ndata: 2\n\ndata: 3\n") == (
        [b"data: 1\n\n", b"data: 2\n\n"],
        b"data: 3\n",
    )


@pytest.mark.parametrize("start", [b"\n", b"\r\n\r\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n\n"])
def test_what_precedes_the_first_frame_is_dropped(start: bytes) -> None:
    whole = start + b"data: 1\n\n"
    assert split(whole) == ([b"data: 1\n\n"], b"")
    assert split(*(whole[i : i + 1] for i in range(len(whole)))) == ([b"data: 1\n\n"], b"")


def test_a_byte_order_mark_later_is_kept() -> None:
    later = b"\xef\xbb\xbfdata: 2\n\n"
    assert split(b"data: 1\n\n", later) == ([b"data: 1\n\n", later], b"")


@pytest.mark.parametrize("piece", [b"x" * 11, b"data: 123\n\n", b"1\n\ndata: 1234\n\n"])
def test_the_limit(piece: bytes) -> None:
    with pytest.raises(FrameTooLong):
        split(piece, limit=10)
    with pytest.raises(FrameTooLong):
        split(b"d:1\n\n", piece, limit=10)


def test_frames_at_the_limit() -> None:
    assert split(b"d: 12345\n\n" * 3, limit=10)[0] == [b"d: 12345\n\n"] * 3
    assert split(*[b"d: 12345\n\n"] * 3, limit=10)[0] == [b"d: 12345\n\n"] * 3


def test_a_long_frame_in_small_pieces_takes_linear_time() -> None:
    # Searching from the start at each piece would take minutes.
    data = b"data: " + b"x" * 2_000_000 + b"\n\n"
    pieces = [data[start : start + 8] for start in range(0, len(data), 8)]
    assert split(*pieces, limit=len(data)) == ([data], b"")


lines = st.one_of(
    st.sampled_from([b"data: {}", b"data", b": comment", b"event: x", b"id: 1", b"\xe4\xbd\xa0"]),
    st.binary(max_size=5),
)
streams = st.lists(st.tuples(lines, st.sampled_from([b"\n", b"\r", b"\r\n"])), max_size=30).map(
    lambda pairs: b"".join(line + end for line, end in pairs)
)


@given(stream=streams, data=st.data())
def test_any_cut_means_the_same_to_a_client(stream: bytes, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=8))
    frames, rest = split(*pieces_of(stream, cuts), limit=10_000)
    whole, cut = Decoder(), Decoder()
    expected = whole.feed(stream)
    # What a client makes of the frames is what it would have made of the stream.
    assert [event for frame in [*frames, rest] for event in cut.feed(frame)] == expected
    # A frame holds one event at the most, and only what is no frame yet is kept back: a CR after
    # an LF may be the first half of a CRLF.
    assert all(len(Decoder().feed(frame)) <= 1 for frame in frames)
    assert Decoder().feed(rest) == [] or rest.endswith(b"\n\r")


@pytest.mark.parametrize(
    ("frame", "event", "data"),
    [
        (b"data: 1\n\n", b"", b"1"),
        (b"data:1\r\n\r\n", b"", b"1"),
        (b"data:  1\r\r", b"", b" 1"),
        (b"data: 1\ndata: 2\n\n", b"", b"1\n2"),
        (b"event: error\ndata: {}\n\n", b"error", b"{}"),
        (b"event:ping\n\n", b"ping", None),
        (b": comment\n\n", b"", None),
        (b"data\n\n", b"", b""),
        (b"database: 1\n\n", b"", None),
        (b"", b"", None),
    ],
)
def test_fields(frame: bytes, event: bytes, data: bytes | None) -> None:
    assert fields(frame) == (event, data)


@pytest.mark.parametrize(
    ("frame", "kept"),
    [
        (b"data: 1\n\n", b"data: 1\n\n"),
        (b": a\ndata: 1\n\n", b"data: 1\n\n"),
        (b"data: 1\r\n: a\r\n\r\n", b"data: 1\r\n\r\n"),
        (b":\r:\rdata: 1\r: b\r\r", b"data: 1\r\r"),
        (b'data: {"a": ":"}\n: b\n\n', b'data: {"a": ":"}\n\n'),
        (b"id: 7\ndata: 1\nretry: 5\n\n", b"data: 1\n\n"),
        (b"id\r\ndata: 1\r\nretry\r\n\r\n", b"data: 1\r\n\r\n"),
        (b"id:\rdata: 1\r\r", b"data: 1\r\r"),
        (b"identity: 7\ndata: id: 1\nretry : 5\n\n", b"identity: 7\ndata: id: 1\nretry : 5\n\n"),
        (b"data: 1\r: a\n\n", b"data: 1\r\n\n"),
        (b"data: 1\r\nid: 4\n\r\n", b"data: 1\r\n\r\n"),
        (b": a\n\n", b"\n"),
    ],
)
def test_what_is_relayed(frame: bytes, kept: bytes) -> None:
    assert stripped(frame) == kept
    assert fields(kept) == fields(frame)


@pytest.mark.parametrize(
    "piece",
    [b"data: 1\n\ndata: 2\n\n", b"data: 1\n\n\ndata: 2\n\n", b"\ndata: 1\n\n\n\ndata: 2\n\n"],
)
def test_several_whole_frames_in_one_piece(piece: bytes) -> None:
    # Not the stream's first piece, which takes the longer way.
    assert split(b"data: 0\n\n", piece) == ([b"data: %d\n\n" % n for n in range(3)], b"")
    assert split(b"data: 0\n\n", b"\n\n", piece, b"\n\n\n")[0][1:] == [
        b"data: 1\n\n",
        b"data: 2\n\n",
    ]


@pytest.mark.parametrize(
    ("frame", "plain"),
    [
        (b"data: {}\n\n", True),
        (b"data: {\n\n", True),
        (b"data:{}\n\n", False),
        (b"data: {}\r\n\r\n", False),
        (b"data: {\r}\n\n", False),
        (b"data: {}\nid: 5\n\n", False),
        (b": x\ndata: {}\n\n", False),
        (b"data: []\n\n", False),
    ],
)
def test_plain_frames(frame: bytes, plain: bool) -> None:
    assert is_plain(frame) is plain


@pytest.mark.parametrize(
    ("frame", "event", "value"),
    [
        (b'data: {"a": 1}\n\n', b"", {"a": 1}),
        (b'event: x\r\ndata: {"a":\r\ndata: 1}\r\n\r\n', b"x", {"a": 1}),
        (b"data: {\n\n", b"", None),
        (b"data: {\n1: 2}\n\n", b"", None),
        (b"event: y\n\n", b"y", None),
        (b"data: [1]\n\n", b"", [1]),
    ],
)
def test_messages(frame: bytes, event: bytes, value: object) -> None:
    assert message(frame) == (event, value)


def test_json_with_halves_of_letters() -> None:
    assert read_json(b'{"a": "\\ud83c", "b": "\\ud83c\\udf0a"}') == {"a": "\ud83c", "b": "🌊"}


@pytest.mark.parametrize(
    "text", [b"", b"{", b"\xff", b"[" * 100_000, b'"\xed\xa0\xbc"', "{}".encode("utf-16")]
)
def test_what_is_no_json(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # it says different things
        read_json(text)
