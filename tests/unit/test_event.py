"""What may be sent, the exact bytes it becomes, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sseflask import Comment, Decoder, Event, EventError, encode
from tests.vectors.table import Encoded, encoded


@pytest.mark.parametrize("vector", encoded(), ids=lambda vector: vector.name)
def test_exact_bytes(vector: Encoded) -> None:
    assert encode(vector.item) == vector.stream


@pytest.mark.parametrize(
    ("fields", "culprit"),
    [
        ({"id": "a\nb"}, "id"),
        ({"id": "a\r"}, "id"),
        ({"id": "\r\nx"}, "id"),
        ({"id": "a\0b"}, "id"),
        ({"id": "\ud800"}, "id"),
        ({"id": True}, "id"),
        ({"id": 1.5}, "id"),
        ({"id": b"1"}, "id"),
        ({"event": "a\nb"}, "event"),
        ({"event": "a\r"}, "event"),
        ({"event": "a\n\ndata: forged"}, "event"),
        ({"event": "\udfff"}, "event"),
        ({"event": 5}, "event"),
        ({"retry": -1}, "retry"),
        ({"retry": True}, "retry"),
        ({"retry": False}, "retry"),
        ({"retry": 1.5}, "retry"),
        ({"retry": "100"}, "retry"),
        ({"data": "a\ud800b"}, "data"),
        ({"data": {"key": "\ud83c"}}, "data"),
        ({"data": NotImplemented}, "data"),
        ({"data": {1, 2}}, "data"),
        ({"data": b"bytes"}, "data"),
    ],
    ids=repr,
)
def test_refused(fields: dict[str, Any], culprit: str) -> None:
    with pytest.raises(EventError, match=culprit):
        Event(**({"data": "a"} | fields))


def test_a_refusal_is_a_value_error() -> None:
    assert issubclass(EventError, ValueError)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_json_lacks_are_refused(number: float) -> None:
    """RFC 8259, section 6: NaN and Infinity are not JSON; a browser's JSON.parse throws."""
    with pytest.raises(EventError, match="data"):
        Event({"n": number})


def test_a_comment_with_a_lone_surrogate_is_refused() -> None:
    with pytest.raises(EventError, match="comment"):
        Comment("\ud800")


@pytest.mark.parametrize("item", ["text", b"bytes", None, {"data": "a"}, 5], ids=repr)
def test_only_events_and_comments_are_encoded(item: Any) -> None:
    with pytest.raises(TypeError):
        encode(item)


def test_events_are_frozen_and_compare_by_value() -> None:
    event = Event("a", "add", 1, 5)
    assert event == Event("a", "add", "1", 5)
    assert event != Event("a", "add", "2", 5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.data = "b"  # type: ignore[misc]


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=10,
)


@given(json_values.filter(lambda value: value is not None and not isinstance(value, str)))
def test_json_arrives_as_it_was(value: Any) -> None:
    stream = encode(Event(value))
    (message,) = Decoder().feed(stream)
    assert json.loads(message.data) == value
    assert stream.count(b"\n") == 2, "JSON is one line of data"
