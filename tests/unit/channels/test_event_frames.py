from __future__ import annotations

import json

import hypothesis.strategies as st
import pytest
from hypothesis import given

from sseflask.channels.event_frames import RESERVED, Cursor, encode_event, frame, gap_frames
from sseflask.errors import EventError
from sseflask.store.api import Entry, Missing
from sseflask.store.names import Pattern
from sseflask.wire import Decoder


def test_an_event_is_stored_without_its_id_and_sent_with_it() -> None:
    kept = encode_event({"a": 1}, event="order", retry=500)
    sent = frame("epoch", Entry(17, "a", kept))
    assert kept in sent
    (event,) = Decoder().feed(sent)
    assert (event.event, event.data, event.last_event_id) == ("order", '{"a":1}', "epoch-17")


@pytest.mark.parametrize(
    ("data", "text"),
    [("", ""), ("a\nb", "a\nb"), (None, "null"), (0, "0"), ([], "[]"), (False, "false")],
)
def test_every_value_reaches_the_client(data: object, text: str) -> None:
    (event,) = Decoder().feed(frame("e", Entry(1, "a", encode_event(data))))
    assert event.data == text


@pytest.mark.parametrize("name", RESERVED)
def test_the_servers_own_types_can_not_be_published(name: str) -> None:
    with pytest.raises(EventError, match="server's own"):
        encode_event("x", event=name)


def test_an_empty_type_is_the_usual_one() -> None:
    (event,) = Decoder().feed(frame("e", Entry(1, "a", encode_event("x", event=""))))
    assert event.event == "message"


@given(st.integers(0, 10**18 - 1), st.from_regex(r"\A[a-z0-9]{1,32}\Z"))
def test_ids_are_read_as_they_are_written(number: int, epoch: str) -> None:
    cursor = Cursor(epoch, number)
    assert Cursor.parse(str(cursor)) == cursor


@pytest.mark.parametrize(
    "text",
    ["", "earliest", "a", "a-", "-1", "a-01", "a--1", "A-1", "a-1 ", " a-1", "a-1\n", "a-\u0661",
     "a-" + "9" * 19, "a" * 33 + "-1", "a-1-2", "é-1"],
)  # fmt: skip
def test_what_is_no_id_of_ours(text: str) -> None:
    assert Cursor.parse(text) is None


@given(st.text())
def test_any_text_is_an_id_or_not(text: str) -> None:
    cursor = Cursor.parse(text)
    assert cursor is None or str(cursor) == text


def test_only_the_last_of_several_gaps_moves_the_client_on() -> None:
    missing = [Missing(Pattern.parse("a"), 5, 9), Missing(Pattern.parse("b.*"), None, None)]
    decoder = Decoder()
    first, second = decoder.feed(gap_frames("trimmed", "e-3", missing, Cursor("e", 3)))
    assert (first.event, first.last_event_id) == ("gap", "")
    assert (second.event, second.last_event_id) == ("gap", "e-3")
    assert json.loads(first.data) == {
        "reason": "trimmed",
        "channel": "a",
        "last_event_id": "e-3",
        "oldest": "e-5",
        "newest": "e-9",
    }
    assert json.loads(second.data)["oldest"] is None


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_whatever_a_client_presented_can_be_repeated(presented: str) -> None:
    missing = [Missing(Pattern.parse("a"), None, None)]
    (event,) = Decoder().feed(gap_frames("unknown", presented, missing, Cursor("e", 0)))
    assert json.loads(event.data)["last_event_id"] == presented
