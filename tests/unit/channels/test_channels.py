"""Publishing and subscribing where threads are threads, with a real log."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sseflask.channels import channels as module
from sseflask.channels.channels import Channels, Ids
from sseflask.channels.event_frames import encode_event
from sseflask.channels.subscription import Subscription
from sseflask.event import MessageEvent
from sseflask.store.api import EventLimits, KeyReused, StoreError
from sseflask.store.names import Pattern
from sseflask.wire import Decoder
from tests.unit.store.sqlite.databases import store_of

SECONDS = 10.0


def make(path: Path | str, keep: int = 100) -> Channels:
    return Channels(lambda: str(path), EventLimits(keep, 3600, 1 << 30))


@pytest.fixture
def channels() -> Iterator[Channels]:
    made = make(":memory:")
    yield made
    made.close()


def published(channels: Channels, channel: str, *data: str) -> list[str]:
    ids = channels.publish(channel, [encode_event(each) for each in data])
    assert isinstance(ids, Ids)
    return ids


def subscribed(channels: Channels, *names: str, last_event_id: str | None = None) -> Subscription:
    return channels.subscribe([Pattern.parse(name) for name in names], last_event_id)


def read(subscription: Subscription, count: int) -> list[MessageEvent]:
    decoder, events = Decoder(), list[MessageEvent]()
    while len(events) < count:
        got = subscription.get(SECONDS)
        assert got is not None, f"only {events}"
        events += decoder.feed(got[0])
    return events


def test_what_is_published_is_received(channels: Channels) -> None:
    subscription = subscribed(channels, "a", "b.*")
    ids = published(channels, "a", "1", "2") + published(channels, "b.x", "3")
    published(channels, "c", "not for us")
    events = read(subscription, 3)
    assert [event.data for event in events] == ["1", "2", "3"]
    assert [event.last_event_id for event in events] == ids
    assert subscription.get(0.0) is None


def test_it_begins_where_it_was_made_though_it_is_read_later(channels: Channels) -> None:
    published(channels, "a", "before")
    subscription = subscribed(channels, "a")
    published(channels, "a", "after")
    assert [event.data for event in read(subscription, 1)] == ["after"]


def test_a_waiting_reader_is_woken(channels: Channels) -> None:
    subscription = subscribed(channels, "a")
    got: list[str] = []
    reader = threading.Thread(
        target=lambda: got.extend(event.data for event in read(subscription, 1))
    )
    reader.start()
    published(channels, "a", "x")
    reader.join(SECONDS)
    assert got == ["x"]


def test_who_abandons_is_woken_for_good(channels: Channels) -> None:
    subscription = subscribed(channels, "a")
    ended = threading.Event()

    def iterate() -> None:
        for _ in subscription.frames():
            pass
        ended.set()

    reader = threading.Thread(target=iterate)
    reader.start()
    subscription.abandon()
    assert ended.wait(SECONDS)
    with pytest.raises(StopIteration):
        subscription.get(0.0)


def test_resuming_from_each_id(channels: Channels) -> None:
    ids = published(channels, "a", *"123456")
    for place, id in enumerate(ids):
        subscription = subscribed(channels, "a", last_event_id=id)
        left = read(subscription, len(ids) - place - 1)
        assert [event.last_event_id for event in left] == ids[place + 1 :]
        assert subscription.get(0.0) is None


def test_the_earliest_is_what_is_there(channels: Channels) -> None:
    published(channels, "a", "1", "2")
    events = read(subscribed(channels, "**", last_event_id="earliest"), 2)
    assert [event.data for event in events] == ["1", "2"]


@pytest.mark.parametrize("unknown", ["nonsense", "EPOCH-99", "\x80\xff", "EPOCH-1x"])
def test_an_id_that_can_not_be_made_out(channels: Channels, unknown: str) -> None:
    (id,) = published(channels, "a", "1")
    unknown = unknown.replace("EPOCH", id.partition("-")[0])
    subscription = subscribed(channels, "a", last_event_id=unknown)
    (gap,) = read(subscription, 1)
    fields = json.loads(gap.data)
    assert (gap.event, fields["reason"], fields["channel"]) == ("gap", "unknown", "a")
    assert (fields["last_event_id"], fields["oldest"], fields["newest"]) == (unknown, id, id)
    published(channels, "a", "next")
    assert [event.data for event in read(subscription, 1)] == ["next"]


def test_a_forgotten_event_is_reported_before_what_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_YOUNG_SECONDS", 0.0)
    channels = make(tmp_path / "store", keep=3)
    ids = published(channels, "a", *"123456789")
    first, *rest = read(subscribed(channels, "a", "b", last_event_id=ids[1]), 4)
    fields = json.loads(first.data)
    assert (first.event, fields["reason"], fields["channel"]) == ("gap", "trimmed", "a")
    assert (fields["oldest"], fields["newest"]) == (ids[6], ids[8])
    assert [event.last_event_id for event in rest] == ids[6:]
    channels.close()


def test_another_store_in_its_place_is_another_epoch(tmp_path: Path) -> None:
    channels = make(tmp_path / "store")
    (old,) = published(channels, "a", "1")
    channels.close()
    for left in tmp_path.glob("store*"):
        if left.is_file():
            left.unlink()
    (new,) = published(channels, "a", "2")
    gap, event = read(subscribed(channels, "a", last_event_id=old), 2)
    assert json.loads(gap.data)["reason"] == "epoch"
    assert (event.data, event.last_event_id) == ("2", new)
    channels.close()


def test_two_processes_worth_of_channels_on_one_file(tmp_path: Path) -> None:
    one, other = make(tmp_path / "store"), make(tmp_path / "store")
    subscription = subscribed(one, "a")
    ids = [*published(other, "a", "1"), *published(one, "a", "2"), *published(other, "a", "3")]
    assert [event.last_event_id for event in read(subscription, 3)] == ids
    # A client may have seen on one worker what the other's tail has not come to.
    (last,) = published(other, "a", "4")
    assert subscribed(one, "a", last_event_id=last).get(0.0) is None
    one.close()
    other.close()


def test_keys(channels: Channels) -> None:
    first = channels.publish("a", [encode_event("x")], key="k", digest=b"d")
    again = channels.publish("a", [encode_event("x")], key="k", digest=b"d")
    assert isinstance(first, Ids)
    assert isinstance(again, Ids)
    assert (first, first.repeated, again.repeated) == (again, False, True)
    assert isinstance(channels.publish("a", [encode_event("y")], key="k", digest=b"e"), KeyReused)


def test_a_store_that_can_not_be_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    channels = make(tmp_path / "file" / "store")
    with pytest.raises(StoreError):
        published(channels, "a", "x")
    with pytest.raises(StoreError):
        subscribed(channels, "a")
    assert channels.store.health() == "unavailable"
    channels.close()


def test_one_that_is_never_read_leaves_nothing(channels: Channels) -> None:
    subscribed(channels, "a").close()
    subscribed(channels, "a")
    assert not channels._per_process.get().feed._audiences


def test_what_others_publish_while_a_store_is_closed_comes_when_it_is_opened(
    tmp_path: Path,
) -> None:
    one, other = make(tmp_path / "store"), make(tmp_path / "store")
    published(one, "a", "1")
    subscription = subscribed(one, "a")
    assert store_of(one).pause(SECONDS)
    published(other, "a", "2")
    store_of(one).resume()
    assert [event.data for event in read(subscription, 1)] == ["2"]
    one.close()
    other.close()


def test_a_child_process_has_a_store_of_its_own(tmp_path: Path) -> None:
    """SQLite must not be open in a process that is copied: what the child stores would be lost."""
    channels = make(tmp_path / "store")
    published(channels, "a", "parent")
    go_on, tell = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        os.close(tell)  # so that it ends with its parent, however that ends
        try:
            published(channels, "a", "child")
            os.read(go_on, 1)  # until the parent has closed its own
            published(channels, "a", "orphan")
            channels.close()
            status = 0
        finally:
            os._exit(status)
    subscription = subscribed(channels, "a", last_event_id="earliest")
    assert [event.data for event in read(subscription, 2)] == ["parent", "child"]
    published(channels, "a", "parent again")
    assert [event.data for event in read(subscription, 1)] == ["parent again"]
    channels.close()
    os.write(tell, b"x")
    assert os.waitpid(child, 0)[1] == 0
    os.close(go_on)
    os.close(tell)
    third = make(tmp_path / "store")
    events = read(subscribed(third, "a", last_event_id="earliest"), 4)
    assert [event.data for event in events] == ["parent", "child", "parent again", "orphan"]
    third.close()


def test_a_copy_that_was_put_back_has_another_epoch(tmp_path: Path) -> None:
    path, copy = tmp_path / "store", tmp_path / "copy"
    channels = make(path)
    published(channels, "a", "1")
    channels.close()
    shutil.copy(path, copy)
    subscription = subscribed(channels, "a")
    seen = published(channels, "a", "2", "3")
    assert len(read(subscription, 2)) == 2
    for left in tmp_path.glob("store-*"):
        left.unlink()
    copy.rename(path)
    until_it_notices = time.monotonic() + SECONDS
    while (new := published(channels, "a", "x")[0]).partition("-")[0] == seen[0].partition("-")[0]:
        assert time.monotonic() < until_it_notices
    gap, *_ = read(subscription, 2)
    assert json.loads(gap.data)["reason"] == "epoch"
    assert new not in seen
    channels.close()


def test_large_events_come_in_small_pages(tmp_path: Path) -> None:
    channels = make(tmp_path / "store")
    published(channels, "a", *["x" * 200_000] * 10)
    subscription = subscribed(channels, "**", last_event_id="earliest")
    sizes = [len(frames) for frames in subscription.history()]
    assert max(sizes) < 600_000
    assert sum(sizes) > 2_000_000
    channels.close()


def test_an_id_is_repeated_shortened(channels: Channels) -> None:
    (gap,) = read(subscribed(channels, "a", last_event_id="x" * 5000), 1)
    assert json.loads(gap.data)["last_event_id"] == "x" * 100


def test_waking_without_news_is_not_the_end_of_the_wait(channels: Channels) -> None:
    subscription = subscribed(channels, "a")
    assert subscription.get(0.0) is None
    feed = channels._per_process.get().feed
    waker = threading.Timer(0.05, lambda: feed.skip(1))
    waker.start()
    began = time.monotonic()
    assert subscription.get(0.3) is None
    assert time.monotonic() - began >= 0.3
    waker.join()


def test_a_busy_store_is_told_from_one_that_fails(channels: Channels) -> None:
    published(channels, "a", "x")
    assert channels.store.health() == "available"
    go_on = threading.Event()
    store_of(channels).submit(lambda _log: go_on.wait(SECONDS), lambda *_: None)
    assert channels.store.health() == "busy"
    go_on.set()
