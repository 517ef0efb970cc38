"""Closing and counting the subscribers of all processes, through the store that they share."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from sseflask.channels.channels import Channels
from sseflask.channels.event_frames import encode_event
from sseflask.channels.history import read_history
from sseflask.channels.subscription import Subscription
from sseflask.store.api import EventLimits
from sseflask.store.names import Pattern
from sseflask.store.sqlite import event_store, event_tables
from sseflask.wire import Decoder
from tests.unit.store.sqlite.databases import store_of

SECONDS = 10.0


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine an answer may take longer than the second that users wait for it."""
    monkeypatch.setattr(event_store, "_ANSWER_SECONDS", 60.0)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[list[Channels]]:
    """Two processes' worth of channels, as far as the store can tell."""
    with ExitStack() as stack:
        made = [make(tmp_path / "store") for _ in range(2)]
        for each in made:
            stack.callback(each.close)
        yield made


def make(path: Path) -> Channels:
    return Channels(lambda: str(path), EventLimits(100, 3600, 1 << 30))


def open_to(channels: Channels, *names: str) -> Subscription:
    """A subscription that waits for what comes."""
    subscription = channels.subscribe([Pattern.parse(name) for name in names], None)
    assert subscription.get(0.0) is None
    return subscription


def publish(channels: Channels, channel: str, *data: str) -> None:
    channels.publish(channel, [encode_event(each) for each in data])


def close(channels: Channels, *names: str) -> None:
    channels.store.close_subscriptions([Pattern.parse(name) for name in names])


def count(channels: Channels, name: str) -> int:
    return channels.store.count_subscriptions(Pattern.parse(name))


def rest(subscription: Subscription) -> tuple[list[str], int | None]:
    """The data of all that it gives to its end, and when its client is to come back."""
    decoder, data = Decoder(), list[str]()
    try:
        while True:
            got = subscription.get(SECONDS)
            assert got is not None, f"no end after {data}"
            data += [event.data for event in decoder.feed(got[0])]
    except StopIteration:
        return data, decoder.retry


def test_a_close_ends_those_of_all_processes(pair: list[Channels]) -> None:
    here, there = pair
    ended = [open_to(channels, "user.7", "news") for channels in pair]
    others = [open_to(channels, "user.8") for channels in pair]
    close(there, "user.7")
    for subscription in ended:
        data, retry = rest(subscription)
        assert (data, subscription.ended) == ([], True)
        assert retry is not None
        assert 500 <= retry <= 3000
    publish(here, "user.8", "still there")
    for subscription in others:
        got = subscription.get(SECONDS)
        assert got is not None
        assert b"still there" in got[0]
    assert count(here, "**") == 2


def test_what_was_published_before_comes_first_and_nothing_after(pair: list[Channels]) -> None:
    """Whichever process publishes and closes, even if this one does not know of the close yet."""
    here, there = pair
    for round in range(20):
        ended = [open_to(channels, "a") for channels in pair]
        publish(here, "a", f"{round}")
        close(there, "a")
        publish(here, "a", "secret")
        publish(there, "a", "secret")
        for subscription in ended:
            assert rest(subscription)[0] == [f"{round}"]


def test_who_is_behind_gets_no_more(pair: list[Channels]) -> None:
    here, there = pair
    publish(here, "a", *["x"] * 300)
    subscription = here.subscribe([Pattern.parse("a")], "earliest")
    got = subscription.get(SECONDS)
    assert got is not None
    assert got[0].count(b"data: x") == 100
    close(there, "a")
    assert count(here, "a") == 0  # and so the close has come here
    data, retry = rest(subscription)
    assert (data, subscription.ended) == ([], True)
    assert retry is not None


def test_one_that_was_made_before_the_close_and_begins_after_it(pair: list[Channels]) -> None:
    here, there = pair
    made = here.subscribe([Pattern.parse("user.7")], None)
    other = here.subscribe([Pattern.parse("user.8")], None)
    close(there, "user.7")
    assert count(here, "user.*") == 0  # and so the close has come here
    publish(here, "user.7", "secret")
    assert rest(made)[0] == []
    assert other.get(0.0) is None
    late = open_to(here, "user.7")
    publish(there, "user.7", "news")
    got = late.get(SECONDS)
    assert got is not None
    assert b"news" in got[0]


@pytest.mark.parametrize(
    ("closed", "ended"),
    [
        ("user.7", {"user.7", "user.7+news"}),
        ("user.*", {"user.7", "user.7+news", "user.8", "user.*"}),
        ("user.**", {"user.7", "user.7+news", "user.8", "user.*", "user.**", "user.8.a"}),
        ("**", {"user.7", "user.7+news", "user.8", "user.*", "user.**", "user.8.a", "**", "news"}),
        ("nobody", set[str]()),
        ("news.*", set[str]()),
    ],
)
def test_who_is_meant(closed: str, ended: set[str]) -> None:
    channels = Channels(lambda: ":memory:", EventLimits(100, 3600, 1 << 30))
    names = ["user.7", "user.7+news", "user.8", "user.*", "user.**", "user.8.a", "**", "news"]
    open = {name: open_to(channels, *name.split("+")) for name in names}
    assert count(channels, closed) == len(ended)
    close(channels, closed)
    assert count(channels, "**") == len(names) - len(ended)
    assert {name for name, each in open.items() if each.reason == "closed"} == ended
    channels.close()


def test_counts_over_all_processes(pair: list[Channels]) -> None:
    here, there = pair
    open = [open_to(here, "room.1"), open_to(here, "room.2"), open_to(there, "room.1", "room.2")]
    for channels in pair:
        assert count(channels, "room.1") == 2
        assert count(channels, "room.*") == count(channels, "**") == 3
        assert count(channels, "room") == 0
    open[2].close()
    assert count(here, "room.1") == 1


def test_counts_asked_at_the_same_time(pair: list[Channels]) -> None:
    open = [open_to(channels, f"room.{n}") for n in range(3) for channels in pair]
    answers: list[int] = []
    askers = [
        threading.Thread(target=lambda each=each, n=n: answers.append(count(each, f"room.{n}")))
        for n in range(3)
        for each in pair * 3
    ]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join(SECONDS)
    assert answers == [2] * len(askers)
    assert count(pair[0], "**") == len(open)


def test_one_that_does_not_answer_is_left_out(
    pair: list[Channels], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_store, "_ANSWER_SECONDS", 1.0)
    here, there = pair
    subscriptions = [open_to(channels, "a") for channels in pair]
    assert store_of(there).pause(SECONDS)
    assert count(here, "a") == 1
    store_of(there).resume()
    assert len(subscriptions) == 2


def test_one_that_has_ended_is_not_waited_for(pair: list[Channels]) -> None:
    here, there = pair
    subscriptions = [open_to(channels, "a") for channels in pair]
    there.close()
    began = time.monotonic()
    assert count(here, "a") == 1
    assert time.monotonic() - began < 30.0
    assert len(subscriptions) == 2


def test_one_that_has_missed_notices_closes_all_subscriptions(
    pair: list[Channels], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(event_tables, "_NOTICES", 3)
    here, there = pair
    subscription = open_to(here, "a")
    assert store_of(here).pause(SECONDS)
    for n in range(10):
        close(there, f"b.{n}")
    store_of(here).resume()
    data, retry = rest(subscription)
    assert data == []
    assert retry is not None
    assert "missed" in caplog.text


def test_the_last_notices_are_kept_while_a_process_can_not_read(pair: list[Channels]) -> None:
    here, there = pair
    closed, stays = open_to(here, "a"), open_to(here, "b")
    assert store_of(here).pause(SECONDS)
    for n in range(20):
        close(there, f"c.{n}")
    close(there, "a")
    store_of(here).resume()
    assert rest(closed)[0] == []
    assert stays.get(0.0) is None


def test_more_names_at_once_than_notices_are_kept(
    pair: list[Channels], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_tables, "_NOTICES", 3)
    here, there = pair
    closed, stays = open_to(here, "b.0"), open_to(here, "a")
    close(there, *(f"b.{n}" for n in range(10)))
    assert rest(closed)[0] == []
    assert count(there, "a") == 1
    assert stays.get(0.0) is None


def test_notices_are_no_events(pair: list[Channels]) -> None:
    """They have no numbers that a client could miss, and take no place of an event."""
    here, there = pair
    first = here.publish("a", [encode_event("1")])
    for n in range(50):
        close(there, f"b.{n}")
        count(here, "b")
    second = there.publish("a", [encode_event("2")])
    assert isinstance(first, list)
    assert isinstance(second, list)
    numbers = [int(ids[0].rpartition("-")[2]) for ids in (first, second)]
    assert numbers[1] == numbers[0] + 1
    resumed = here.subscribe([Pattern.parse("**")], first[0])
    got = resumed.get(SECONDS)
    assert got is not None
    assert got[0] == f"id: {second[0]}\ndata: 2\n\n".encode()


def test_little_is_kept_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_tables, "_NOTICES", 5)
    channels = make(tmp_path / "store")
    for _ in range(20):
        close(channels, "a")
        count(channels, "a")
    channels.close()
    with sqlite3.connect(tmp_path / "store") as database:
        (notices,) = database.execute("SELECT count(*) FROM notices").fetchone()
        (answers,) = database.execute("SELECT count(*) FROM answers").fetchone()
    database.close()
    assert (notices, answers) == (6, 0)


def test_a_file_of_before(tmp_path: Path) -> None:
    """Made by a version that had no notices: its events stay."""
    path = tmp_path / "store"
    channels = make(path)
    publish(channels, "a", "1")
    channels.close()
    with sqlite3.connect(path) as database:
        database.execute("DROP TABLE notices")
        database.execute("DROP TABLE answers")
        database.execute("ALTER TABLE log DROP COLUMN notices")
    database.close()
    subscription = open_to(channels, "a")
    close(channels, "a")
    assert rest(subscription)[0] == []
    (event,) = read_history(channels.store, Pattern.parse("a"), "earliest", 10).events
    assert event.data == "1"
    channels.close()
