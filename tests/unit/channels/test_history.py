"""Reading what a channel has been given, as a finite list."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sseflask.channels import channels as module
from sseflask.channels import history as past
from sseflask.channels.channels import Channels, Ids
from sseflask.channels.event_frames import encode_event
from sseflask.channels.history import ChannelEvent, ChannelHistory, read_history
from sseflask.store.api import Entry, EventLimits, History, HistoryQuery, Position, StoreError
from sseflask.store.names import Pattern
from tests.live.kit.waiting import until
from tests.unit.store.sqlite.databases import store_of


@pytest.fixture
def channels(monkeypatch: pytest.MonkeyPatch) -> Iterator[Channels]:
    monkeypatch.setattr(module, "_YOUNG_SECONDS", 0.0)
    made = make(":memory:")
    yield made
    made.close()


def make(path: Path | str) -> Channels:
    return Channels(lambda: str(path), EventLimits(20, 3600, 1 << 30))


def publish(channels: Channels, channel: str, *data: str, event: str | None = None) -> list[str]:
    ids = channels.publish(channel, [encode_event(each, event) for each in data])
    assert isinstance(ids, Ids)
    return ids


def read(
    channels: Channels, name: str, after: str = "earliest", limit: int = 100
) -> ChannelHistory:
    return read_history(channels.store, Pattern.parse(name), after, limit)


def ids_of(history: ChannelHistory) -> list[str]:
    return [event.id for event in history.events]


def test_all_there_is(channels: Channels) -> None:
    (one,) = publish(channels, "a.1", "two\nlines", event="note")
    (other,) = publish(channels, "b", "not asked for")
    (two,) = publish(channels, "a.2", "")
    assert read(channels, "a.*") == ChannelHistory(
        events=[
            ChannelEvent("a.1", one, "note", "two\nlines"),
            ChannelEvent("a.2", two, "message", ""),
        ],
        cursor=two,
        gap=None,
        more=False,
    )
    assert ids_of(read(channels, "**")) == [one, other, two]


def test_nothing_there(channels: Channels) -> None:
    nothing = read(channels, "a")
    assert (nothing.events, nothing.gap, nothing.more) == ([], None, False)
    ids = publish(channels, "a", "1")
    assert ids_of(read(channels, "a", nothing.cursor)) == ids


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 12, 13])
def test_in_pieces(channels: Channels, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(past, "_PAGE", 3)
    ids = []
    for n in range(12):
        ids += publish(channels, "a", f"{n}")
        publish(channels, "b", "in between")
    got, cursor, more = list[str](), "earliest", True
    while more:
        history = read(channels, "a", cursor, limit)
        assert len(history.events) <= limit
        assert history.gap is None
        got += ids_of(history)
        cursor, more = history.cursor, history.more
    assert got == ids
    assert read(channels, "a", cursor).events == []


def test_from_an_id_on(channels: Channels) -> None:
    ids = publish(channels, "a", "1", "2", "3")
    for place, id in enumerate(ids):
        assert ids_of(read(channels, "a", id)) == ids[place + 1 :]
        assert ids_of(read(channels, "a", f"{id}.end")) == ids[place + 1 :]


def test_what_is_forgotten_is_reported_to_clients_from_before(channels: Channels) -> None:
    (first,) = publish(channels, "a", "first")
    before = f"{first.rpartition('-')[0]}-0"
    for n in range(60):
        publish(channels, "a", f"{n}")
    kept = read(channels, "a")
    assert kept.gap is None
    assert 20 <= len(kept.events) <= 22
    for after in (first, before):
        assert read(channels, "a", after) == ChannelHistory(
            kept.events, kept.cursor, "trimmed", more=False
        )
    assert read(channels, "b", first).gap is None, "nothing of it is missing"


def test_the_id_of_another_store(channels: Channels) -> None:
    ids = publish(channels, "a", "1", "2")
    history = read(channels, "a", "zzzz-1")
    assert (ids_of(history), history.gap) == (ids, "epoch")


@pytest.mark.parametrize("unknown", ["nonsense", "EPOCH-99", "EPOCH-1x"])
def test_an_id_that_can_not_be_made_out(channels: Channels, unknown: str) -> None:
    ids = publish(channels, "a", "1", "2")
    unknown = unknown.replace("EPOCH", ids[0].rpartition("-")[0])
    assert read(channels, "a", unknown) == ChannelHistory([], ids[1], "unknown", more=False)


def test_what_another_process_has_published_before_is_in_it(tmp_path: Path) -> None:
    here, there = make(tmp_path / "store"), make(tmp_path / "store")
    for n in range(20):
        ids = publish(there, "a", f"{n}")
        assert ids_of(read(here, "a"))[-1:] == ids
        assert here.position() == ids[0]
        subscription = here.subscribe([Pattern.parse("a")], None, since=here.position())
        ids = publish(there, "a", "next")
        got = subscription.get(10)
        assert got is not None
        assert got[0] == f"id: {ids[0]}\ndata: next\n\n".encode()
        subscription.close()
    here.close()
    there.close()


def test_asking_how_far_the_store_is_hides_no_event(tmp_path: Path) -> None:
    """What is read for a new subscriber is also delivered to waiting ones."""
    here, there = make(tmp_path / "store"), make(tmp_path / "store")
    subscription = here.subscribe([Pattern.parse("a")], None)
    assert subscription.get(0.0) is None
    publish(here, "b", "y")  # so that the thread has to be asked
    store, gate = store_of(here), threading.Event()
    store.submit(lambda _log: gate.wait(10), lambda *_: None)
    # It comes after the thread's look at what others have written, and before the question.
    store.submit(lambda _log: publish(there, "a", "x"), lambda *_: None)
    asked = threading.Thread(target=here.position)
    asked.start()
    until(lambda: len(store._calls) == 2, "both wait for the thread")
    gate.set()
    asked.join(10)
    got = subscription.get(0.0)
    assert got is not None
    assert got[0].endswith(b"data: x\n\n")
    here.close()
    there.close()


class Replaced:
    """A store that is replaced while it is read, some times."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.epoch = 0

    def position(self) -> Position:
        return Position(f"e{self.epoch}", 2)

    def history(self, query: HistoryQuery) -> History:
        entries = [Entry(n, "a", encode_event(self.epoch)) for n in range(query.after + 1, 3)]
        answer = History(f"e{self.epoch}", entries[:1], entries[0].number, [], 2)
        if query.after and self.times:
            self.times -= 1
            self.epoch += 1
            return History(f"e{self.epoch}", [], 2, [], 2)
        return answer


@pytest.mark.parametrize("times", [0, 1, 2])
def test_all_of_it_is_of_one_epoch(times: int) -> None:
    store: Any = Replaced(times)
    history = read_history(store, Pattern.parse("a"), "earliest", 10)
    assert [event.id for event in history.events] == [f"e{times}-1", f"e{times}-2"]
    assert (history.cursor, history.gap) == (f"e{times}-2", None)


def test_a_store_that_is_replaced_again_and_again_can_not_be_read() -> None:
    store: Any = Replaced(3)
    with pytest.raises(StoreError, match="replaced again and again"):
        read_history(store, Pattern.parse("a"), "earliest", 10)
