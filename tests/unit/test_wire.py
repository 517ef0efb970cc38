"""The decoder against the table of frames, and round trips for arbitrary text and cuts."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sseflask import Comment, Decoder, Event, MessageEvent, encode
from tests.vectors.table import Vector, frames

VECTORS = frames()
every_vector = pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)
LINE_END = re.compile(r"\r\n|\r|\n")


def decode(*pieces: bytes) -> tuple[Decoder, list[MessageEvent]]:
    decoder = Decoder()
    messages = [message for piece in pieces for message in decoder.feed(piece)]
    return decoder, messages


def check(vector: Vector, *pieces: bytes) -> None:
    decoder, messages = decode(*pieces)
    assert messages == list(vector.messages)
    assert decoder.last_event_id == vector.last_event_id
    assert decoder.retry == vector.retry


def test_the_table_is_read_as_a_whole() -> None:
    names = [vector.name for vector in VECTORS]
    assert len(names) > 100
    assert len(set(names)) == len(names)


@every_vector
def test_whole(vector: Vector) -> None:
    check(vector, vector.stream)


@every_vector
def test_byte_by_byte(vector: Vector) -> None:
    check(vector, *(vector.stream[at : at + 1] for at in range(len(vector.stream))))


@every_vector
def test_cut_in_two_anywhere(vector: Vector) -> None:
    size = len(vector.stream)
    # Each cut decodes the whole stream: the long ones are cut at their ends and here and there.
    cuts = range(size + 1) if size < 1000 else [*range(60), *range(60, size, 1999), size - 3, size]
    for cut in cuts:
        check(vector, vector.stream[:cut], b"", vector.stream[cut:])


@every_vector
def test_an_unfinished_event_after_it_changes_nothing(vector: Vector) -> None:
    check(vector, vector.stream + b"data: never finished")


@every_vector
def test_the_event_after_it_is_dispatched(vector: Vector) -> None:
    """Whatever a stream held, what follows its next blank line is read properly."""
    decoder, messages = decode(vector.stream + b"\n\n", b"id: next\r\ndata: after\r\n\r\n")
    assert messages[: len(vector.messages)] == list(vector.messages)
    assert messages[-1] == MessageEvent("after", "message", "next")
    assert decoder.last_event_id == "next"


@every_vector
def test_what_was_dispatched_can_be_sent_again(vector: Vector) -> None:
    stream = b"".join(
        encode(Event(message.data, message.event, message.last_event_id))
        for message in vector.messages
    )
    assert decode(stream)[1] == list(vector.messages)


def test_messages_come_as_soon_as_their_blank_line_does() -> None:
    decoder = Decoder()
    assert decoder.feed(b"data: a\n") == []
    assert decoder.feed(b"\n") == [MessageEvent("a")]
    assert decoder.feed(b"data: b\r") == []
    assert decoder.feed(b"\r") == [MessageEvent("b")], "nothing to wait for: CR ends a line"
    assert decoder.feed(b"\ndata: c\r\n\r") == [MessageEvent("c")]
    assert decoder.feed(b"\n") == [], "the LF belongs to the CR before it"


def test_state_while_a_block_is_open() -> None:
    decoder = Decoder()
    assert (decoder.last_event_id, decoder.retry) == ("", None)
    decoder.feed(b"retry: 5\nid: 1\n")
    assert (decoder.last_event_id, decoder.retry) == ("", 5), "an id counts from its dispatch on"
    decoder.feed(b"\n")
    assert decoder.last_event_id == "1"


def test_a_retry_of_any_length_breaks_nothing() -> None:
    """Only ASCII digits, so the standard allows it; Python refuses to convert 5,000 of them."""
    _, messages = decode(b"retry: " + b"9" * 5000 + b"\ndata: a\n\n")
    assert messages == [MessageEvent("a")]


def test_one_long_line_in_small_pieces_is_read_in_linear_time() -> None:
    text = "0123456789" * 100_000
    stream = f"data: {text}\n\n".encode()
    _, messages = decode(*(stream[at : at + 7] for at in range(0, len(stream), 7)))
    assert messages == [MessageEvent(text)]


# Text that can be sent at all; line breaks and the format's own characters come up often.
texts = st.text(
    st.one_of(st.sampled_from("\r\n: \ufeff\0\u2028\u0085"), st.characters(codec="utf-8"))
)
names = texts.map(lambda text: re.sub(r"[\r\n]", "", text))
ids = names.map(lambda text: text.replace("\0", ""))
events = st.builds(
    Event,
    data=texts,
    event=st.none() | names,
    id=st.none() | ids | st.integers(0, 10**20),
    retry=st.none() | st.integers(0, 10**12),
)
items = st.lists(st.one_of(events, st.builds(Comment, texts)), max_size=8)


def expected(sent: list[Event | Comment]) -> tuple[list[MessageEvent], str, int | None]:
    """What a client must see, from the fields alone."""
    messages: list[MessageEvent] = []
    last_event_id, retry = "", None
    for item in sent:
        if isinstance(item, Comment):
            continue
        last_event_id = last_event_id if item.id is None else str(item.id)
        retry = retry if item.retry is None else item.retry
        assert item.data is not None
        data = "\n".join(LINE_END.split(item.data))
        messages.append(MessageEvent(data, item.event or "message", last_event_id))
    return messages, last_event_id, retry


@given(items, st.lists(st.integers(0, 400)))
@example([Event("\ufeff", id="\ufeff", event="\ufeff")], [1, 2])
@example([Event("a\r"), Event("\nb")], [8, 9, 10])
def test_round_trip(sent: list[Event | Comment], cuts: list[int]) -> None:
    stream = b"".join(map(encode, sent))
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    pieces = [stream[a:b] for a, b in itertools.pairwise(edges)]
    decoder, messages = decode(*pieces)
    assert (messages, decoder.last_event_id, decoder.retry) == expected(sent)


@given(st.binary(max_size=200), st.integers(0, 200))
def test_any_bytes_are_read_the_same_however_they_are_cut(stream: bytes, cut: int) -> None:
    whole, messages = decode(stream)
    halves, again = decode(stream[:cut], stream[cut:])
    assert again == messages
    assert (halves.last_event_id, halves.retry) == (whole.last_event_id, whole.retry)


@given(st.text(st.sampled_from("data:id event\r\n\0\ufeff5 retry"), max_size=60), st.data())
def test_streams_of_field_names_are_read_the_same_however_they_are_cut(
    text: str, data: st.DataObject
) -> None:
    stream = text.encode()
    whole, messages = decode(stream)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=5)))
    edges = [0, *cuts, len(stream)]
    parts, again = decode(*(stream[a:b] for a, b in itertools.pairwise(edges)))
    assert again == messages
    assert (parts.last_event_id, parts.retry) == (whole.last_event_id, whole.retry)
