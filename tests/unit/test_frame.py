"""The bytes of an event are those of a plain writer, field by field, however it was made."""

from __future__ import annotations

import dataclasses
import enum
import itertools
import json
import pickle
import re
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from sseflask import Event, EventError, encode
from sseflask.event import _MOST_KEPT


class Text(str):
    __slots__ = ()


class Name(str, enum.Enum):
    ADD = "add"
    TWO_LINES = "a\nb"


class Number(enum.IntEnum):
    SEVEN = 7


class Derived(Event):
    """Keeps no frame."""


def plain(data: Any, event: Any, id: Any, retry: Any) -> bytes | None:
    """What the standard says, in as many steps as it takes; ``None`` if it can't be sent."""
    lines = []
    if retry is not None:
        if isinstance(retry, bool) or retry < 0:
            return None
        lines.append(f"retry: {int(retry)}")
    if id is not None:
        if isinstance(id, bool):
            return None
        id = str.__str__(id) if isinstance(id, str) else int.__repr__(id)
        if re.search("[\r\n\0]", id):
            return None
        lines.append(f"id: {id}")
    if event is not None:
        event = str.__str__(event)
        if re.search("[\r\n]", event):
            return None
        lines.append(f"event: {event}")
    if data is not None:
        if isinstance(data, str):
            data = str.__str__(data)
        else:
            data = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
        lines += [f"data: {line}" for line in re.split("\r\n|\r|\n", data)]
    try:
        return "".join(f"{line}\n" for line in [*lines, ""]).encode() if lines else b""
    except UnicodeEncodeError:
        return None


def made(kind: type[Event], *fields: Any) -> Event | None:
    try:
        return kind(*fields)
    except EventError:
        return None


texts = st.text(
    st.one_of(st.sampled_from("\r\n: \ufeff\0\u2028é好😀"), st.characters(exclude_categories=())),
    max_size=12,
)
long_texts = st.builds(
    lambda text, more, at: f"{'好x'[at] * (_MOST_KEPT - len(text) + more)}{text}",
    texts,
    st.integers(-1, 1),
    st.integers(0, 1),
)
fields = (
    st.none() | texts | long_texts | texts.map(Text) | st.sampled_from(Name) | st.integers(),
    st.none() | texts | texts.map(Text) | st.sampled_from(Name),
    st.none() | texts | texts.map(Text) | st.integers() | st.sampled_from(Number) | st.booleans(),
    st.none() | st.integers() | st.sampled_from(Number) | st.booleans(),
)


@given(*fields)
@example("one line", None, 1, None)
@example("two\r\nlines\r", None, 1, None)
@example(None, None, None, None)
@example("", "", "", 0)
@example("\ud800", None, 1, None)
@example("x" * _MOST_KEPT + "\ud800", None, 1, None)
@example("x" * _MOST_KEPT, "\ud800", None, None)
@example("x", None, "\ud800", None)
def test_its_bytes_are_those_of_a_plain_writer(data: Any, event: Any, id: Any, retry: Any) -> None:
    frame = plain(data, event, id, retry)
    for kind in Event, Derived:
        item = made(kind, data, event, id, retry)
        assert (None if item is None else encode(item)) == frame


@given(*fields)
def test_what_was_copied_in_any_way_has_the_same_bytes(
    data: Any, event: Any, id: Any, retry: Any
) -> None:
    for kind in Event, Derived:
        item = made(kind, data, event, id, retry)
        if item is not None:
            again = pickle.loads(pickle.dumps(item))
            assert again == item == dataclasses.replace(item)
            assert encode(again) == encode(item) == encode(dataclasses.replace(item))


def test_changed_copies_have_bytes_of_their_own() -> None:
    item = Event("a", "add", 1, 5)
    changes: list[dict[str, Any]] = [{"data": "b"}, {"event": None}, {"id": "2"}, {"retry": 7}]
    for change in changes:
        changed = dataclasses.replace(item, **change)
        assert encode(changed) == plain(*dataclasses.asdict(changed).values())
        assert encode(changed) != encode(item)


def test_all_combinations_of_fields() -> None:
    values = (None, "a", "a\nb"), (None, "add"), (None, "1", 1), (None, 0, 5)
    for combination in itertools.product(*values):
        assert encode(Event(*combination)) == plain(*combination)
