"""What may be sent, the exact bytes it becomes, and what is refused."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import tracemalloc
import weakref
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
    for field in ("data", "event", "id", "retry"):
        with pytest.raises(dataclasses.FrozenInstanceError, match=field):
            setattr(event, field, None)
        with pytest.raises(dataclasses.FrozenInstanceError, match=field):
            delattr(event, field)
    with pytest.raises(AttributeError):
        event.other = "b"  # type: ignore[attr-defined]
    assert event == Event("a", "add", 1, 5)


def test_an_event_is_a_dataclass() -> None:
    event = Event("a", "add", 1)
    assert repr(event) == "Event(data='a', event='add', id='1', retry=None)"
    assert dataclasses.asdict(event) == {"data": "a", "event": "add", "id": "1", "retry": None}
    assert dataclasses.replace(event, data="b", retry=5) == Event("b", "add", 1, 5)
    assert [field.default for field in dataclasses.fields(event)] == [None] * 4
    assert len({event, Event("a", "add", "1"), Event("a")}) == 2
    assert weakref.ref(event)() is event
    match event:
        case Event(data, name, id="1", retry=None):
            assert (data, name) == ("a", "add")
        case _:
            pytest.fail("it does not match")


def restored_from_state(event: Event) -> Event:
    """As from a pickle of a version whose events had a dictionary."""
    restored = Event.__new__(Event)
    restored.__setstate__(dataclasses.asdict(event))
    return restored


@dataclasses.dataclass(frozen=True)
class Checked(Event):
    """Writes its fields itself, as the constructor of a dataclass does."""

    more: int = 0


@dataclasses.dataclass(frozen=True)
class Handmade(Event):
    more: int = 0

    def __init__(self, data: Any) -> None:
        super().__init__(data, id=1)
        object.__setattr__(self, "more", 1)


class Slotted(Event):
    __slots__ = ("more",)

    def __init__(self, data: Any) -> None:
        super().__init__(data, id=1)
        self.more = 1


class Loud(Event):
    @property
    def event(self) -> str:
        return "loud"


EVERY_KIND = [
    Event("a", "add", 1, 5),
    Event("a" * 100_000),
    Checked("a", None, "1"),
    Handmade("a"),
    Slotted("a"),
    Loud("a", id=1),
]
every_kind = pytest.mark.parametrize("event", EVERY_KIND, ids=lambda event: type(event).__name__)


@every_kind
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_events_are_pickled(event: Event, protocol: int) -> None:
    restored = pickle.loads(pickle.dumps(event, protocol))
    assert restored == event
    assert encode(restored) == encode(event)
    assert getattr(restored, "more", None) == getattr(event, "more", None)


@every_kind
def test_events_are_copied(event: Event) -> None:
    for copied in copy.copy(event), copy.deepcopy(event), restored_from_state(EVERY_KIND[0]):
        with pytest.raises(dataclasses.FrozenInstanceError):
            copied.data = "b"  # type: ignore[misc]
    assert copy.copy(event) == copy.deepcopy(event) == event
    assert restored_from_state(EVERY_KIND[0]) == EVERY_KIND[0]


@every_kind
def test_classes_derived_from_an_event_are_frozen_too(event: Event) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.data = "b"  # type: ignore[misc]


def test_a_derived_class_says_what_is_sent() -> None:
    assert encode(Checked("a", None, "1")) == b"id: 1\ndata: a\n\n"
    assert encode(Handmade("a")) == b"id: 1\ndata: a\n\n"
    assert encode(Loud("a", id=1)) == b"id: 1\nevent: loud\ndata: a\n\n"


def test_large_data_is_not_held_twice() -> None:
    data = "a" * 100_000
    tracemalloc.start()
    try:
        events = [Event(data, id=number) for number in range(100)]
        assert b"".join(map(encode, events)).count(b"\n\n") == 100
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 10 * len(data)


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
