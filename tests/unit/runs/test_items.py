"""The frames of what an application yields, and what is read from them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from sseflask.errors import EventError, Failure
from sseflask.event import Comment, Event
from sseflask.runs.items import ItemEncoder, ItemOutcome, ItemView, result_json
from sseflask.store.run_api import Run, size_of
from sseflask.wire import Decoder, encode, events_in

PIECES = [
    *(b"data: a\n\n", b"data: a\ndata: b\n\n", b"data:\n\n", b"data\n\n", b"data: \xff\n\n"),
    *(b"data: a\r\n\r\n", b"data: a\r\r", b"event: tick\ndata: 1\n\n", b"id: 7\ndata: x\n\n"),
    *(b": comment\n", b": comment\n\n", b"retry: 70\n\n", b"retry: no\n", b"unknown: field\n"),
    *(b"event: message\ndata: m\n\n", b"data: a\ndatax: b\n\n", b"data: a\n\n\n", b"event: e\n\n"),
    *(b"\xef\xbb\xbfdata: bom\n\n", b"\n", b"\r", b"data: unfinished", "data: ü\n\n".encode()),
]


def cut(stream: bytes, places: Iterable[int]) -> list[bytes]:
    ends = sorted({place % (len(stream) + 1) for place in places} | {len(stream)})
    return [stream[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def read(*chunks: bytes) -> tuple[list[tuple[str, str]], int | None]:
    decoder = Decoder()
    events = [event for chunk in chunks for event in decoder.feed(chunk)]
    return [(event.event, event.data) for event in events], decoder.retry


@given(
    st.lists(st.sampled_from(PIECES) | st.binary(max_size=6), max_size=8).map(b"".join),
    st.lists(st.integers(0, 200), max_size=6),
)
def test_bytes_cut_anywhere_mean_what_they_mean_uncut(stream: bytes, places: list[int]) -> None:
    """Each frame is one event, or the reconnection time, and begins and ends as a line does."""
    encoder = ItemEncoder(None)
    frames = [frame for chunk in cut(stream, places) for frame in encoder.frames(chunk)]
    view = ItemView("r", "items")
    assert read(*(view.take(n, frame) for n, frame in enumerate(frames, 1))) == read(stream)
    assert all(events_in(frame) == 1 and frame.endswith(b"\n\n") for frame in frames)
    assert all(frame.decode() and len(read(frame)[0]) <= 1 for frame in frames)


def test_each_event_has_an_id_of_its_own_however_lines_end() -> None:
    assert ItemEncoder(None).frames(b"data: a\r\rdata: b\n\n") == [b"data: a\n\n", b"data: b\n\n"]


def test_what_is_no_text_is_replaced_once_for_all_viewers() -> None:
    assert ItemEncoder(None).frames(b"data: \xff\n\n") == ["data: \ufffd\n\n".encode()]


def test_the_reconnection_time_is_said_when_it_is_set() -> None:
    encoder = ItemEncoder(None)
    assert encoder.frames(b"retry: 5\ndata: a\n\n") == [b"data: a\n\n", b"retry: 5\n\n"]
    assert encoder.frames(b"data: b\n\n") == [b"data: b\n\n"]


def test_one_plain_event_is_kept_as_it_is() -> None:
    for plain in (b"data: x\n\n", b"data:x\ndata: y\n\n"):
        assert ItemEncoder(None).frames(plain) == [plain]


@pytest.mark.parametrize("kind", ["done", "failure"])
def test_the_types_of_the_last_event_are_reserved(kind: str) -> None:
    half = f"event: {kind}\ndata: x\n".encode()
    encoder = ItemEncoder(None)
    assert encoder.frames(half) == []
    with pytest.raises(EventError, match="reserved"):
        encoder.frames(b"\n")
    with pytest.raises(EventError, match="reserved"):
        ItemEncoder(None).frames(Event("x", event=kind))


@pytest.mark.parametrize(
    ("item", "frames"),
    [
        (Event("a", event="tick", id=7, retry=3), [b"retry: 3\nevent: tick\ndata: a\n\n"]),
        (Event(id=7), []),
        (Comment("a\nb"), [b": a\n: b\n\n"]),
        ("text", [b"data: text\n\n"]),
        ({"a": 1}, [b'data: {"a":1}\n\n']),
        (memoryview(b"data: x\n\n"), [b"data: x\n\n"]),
        (b"", []),
    ],
)
def test_items(item: Any, frames: list[bytes]) -> None:
    assert ItemEncoder(Flask("items")).frames(item) == frames


def ended(outcome: ItemOutcome) -> Run:
    return Run(1, "r", "items", 2, 3, outcome.ending().outcome)


@pytest.mark.parametrize(
    ("outcome", "name", "data"),
    [
        (
            ItemOutcome("finished", result='{"n":1}'),
            "done",
            '{"status":"finished","result":{"n":1}}',
        ),
        (ItemOutcome("finished", result="null"), "done", '{"status":"finished","result":null}'),
        (ItemOutcome("finished"), "done", '{"status":"finished"}'),
        (ItemOutcome("stopped"), "done", '{"status":"stopped"}'),
        (ItemOutcome("cancelled"), "done", '{"status":"cancelled"}'),
    ],
)
def test_the_last_event(outcome: ItemOutcome, name: str, data: str) -> None:
    stored = ItemOutcome.of(ended(outcome))
    assert stored == outcome
    assert ItemView("r", "items").end(3, stored) == b"id: r.3\n" + encode(Event(data, event=name))


def test_the_last_event_of_a_failure_has_its_error() -> None:
    failure = Failure("no", status=502, code="broken")
    stored = ItemOutcome.of(ended(ItemOutcome.failed(failure)))
    event = stored.last_event()
    assert event.event == "failure"
    assert json.loads(event.data or "") == failure.body()


def test_results() -> None:
    app = Flask("results")
    assert result_json({"a": [1, None]}, app) == '{"a":[1,null]}'
    assert result_json(None, None) == "null"
    assert result_json(object(), app) is None, "JSON can't carry it"
    assert result_json("\ud800", app) in (None, '"\\ud800"')
    assert ItemOutcome("finished", result="ü").size == size_of(["ü".encode()])
    assert ItemOutcome("finished").size == 0
