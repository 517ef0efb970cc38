"""The place of a process in the tail: what is news, what is missed, by values alone."""

from __future__ import annotations

import pytest

from sseflask.store.api import Entry
from sseflask.store.redis.event_news import EventNews
from sseflask.store.redis.event_tail import FIRST_ENTRIES, EventTail, Place, Renewed, next_count
from sseflask.store.tail import Notice, Skipped
from tests.contract.event_stores import Listener

Row = tuple[bytes, list[bytes]]


def events(last: int, before: int, notices: int, channel: str, *frames: bytes) -> Row:
    fields = [b"p", b"%d %d nonce" % (before, notices), b"c", channel.encode()]
    for frame in frames:
        fields += [b"f", frame]
    return b"%d-0" % last, fields


def notice(newest: int, place: int, before: int, notices: int, kind: str, body: str) -> Row:
    p = b"%d %d -" % (before, notices)
    return b"%d-%d" % (newest, place), [b"p", p, b"k", kind.encode(), b"b", body.encode()]


@pytest.fixture
def tail() -> EventTail:
    tail = EventTail()
    assert tail.open(Place("g", "e", 10, 3, 1))
    return tail


def test_it_begins_where_the_server_is(tail: EventTail) -> None:
    assert tail.cursor == "10-1"
    assert tail.has(Place("g", "e", 10, 3, 1))
    assert not tail.has(Place("g", "e", 11, 3, 0))
    assert not tail.has(Place("g", "e", 10, 4, 2))


def test_notices_that_the_server_has_lost_come_again_with_other_words(tail: EventTail) -> None:
    assert not tail.open(Place("g", "e", 10, 2, 0))
    assert tail.cursor == "10-0"
    assert tail.take([notice(10, 1, 10, 2, "epoch", "f")]) == [Renewed("f", 10)]
    assert not tail.open(Place("g", "f", 12, 1, 0))
    assert tail.cursor == "10-1", "events come first"
    assert tail.take([events(11, 10, 3, "a", b"x")])[-1] == [Entry(11, "a", b"x")]


def test_news_come_in_order_and_once(tail: EventTail) -> None:
    rows = [
        events(11, 10, 3, "a", b"x"),
        events(13, 11, 3, "b", b"y", b"z"),
        notice(13, 1, 13, 3, "close", "a.*"),
        events(14, 13, 4, "a", b"w"),
    ]
    expected = [
        [Entry(11, "a", b"x"), Entry(12, "b", b"y"), Entry(13, "b", b"z")],
        Notice(4, 13, "close", "a.*"),
        [Entry(14, "a", b"w")],
    ]
    assert tail.take(rows) == expected
    assert tail.cursor == "14-0"
    assert tail.nonce == b"nonce"
    assert tail.take(rows) == []
    assert tail.has(Place("g", "e", 14, 4, 0))


def test_own_events_are_taken_if_they_are_next(tail: EventTail) -> None:
    before = Place("g", "e", 10, 3, 0)
    assert not tail.take_own(before._replace(newest=11), 12, b"n")
    assert not tail.take_own(before._replace(notices=4), 12, b"n")
    assert not tail.take_own(before._replace(generation="other"), 12, b"n")
    assert tail.take_own(before, 12, b"n")
    assert (tail.cursor, tail.nonce) == ("12-0", b"n")
    # They come with the tail as well.
    assert tail.take([events(12, 10, 3, "a", b"x", b"y"), events(13, 12, 3, "a", b"z")]) == [
        [Entry(13, "a", b"z")]
    ]


def test_what_was_missed_is_said_before_what_comes_after_it(
    tail: EventTail, caplog: pytest.LogCaptureFixture
) -> None:
    assert tail.take([events(11, 10, 3, "a", b"x"), events(20, 19, 3, "a", b"y")]) == [
        [Entry(11, "a", b"x")],
        Skipped(19),
        [Entry(20, "a", b"y")],
    ]
    assert not caplog.records
    assert tail.take([events(21, 20, 5, "a", b"z")]) == [
        Notice(5, 20, "close", "**"),
        [Entry(21, "a", b"z")],
    ]
    assert "notices in the channel log were missed" in caplog.text


def test_numbers_that_were_left_out_are_nothing_missed(tail: EventTail) -> None:
    assert tail.take([events(1001, 10, 3, "a", b"x")]) == [[Entry(1001, "a", b"x")]]


def test_another_epoch(tail: EventTail) -> None:
    rows = [notice(10, 2, 10, 3, "epoch", "new"), events(11, 10, 4, "a", b"x")]
    assert tail.take(rows) == [Renewed("new", 10), [Entry(11, "a", b"x")]]
    assert tail.epoch == "new"
    assert not tail.open(Place("g", "new", 11, 4, 0))


def test_what_a_later_version_adds_is_passed_over(tail: EventTail) -> None:
    rows = [notice(10, 2, 10, 3, "new kind", "b"), notice(10, 3, 10, 4, "count", "c")]
    assert tail.take(rows) == [Notice(5, 10, "count", "c")]


def test_another_store(tail: EventTail) -> None:
    assert not tail.open(Place("g", "e", 50, 9, 0))  # the tail will bring what is between
    assert tail.cursor == "10-1"
    assert tail.open(Place("other", "e2", 2, 1, 0))
    assert (tail.epoch, tail.cursor) == ("e2", "2-0")
    # Nothing is to be waited for in a store that is gone.
    assert tail.has(Place("g", "e", 60, 9, 0))


def test_a_tail_that_is_gone(tail: EventTail, caplog: pytest.LogCaptureFixture) -> None:
    assert tail.skip(Place("g", "e", 15, 3, 0)) == [Skipped(15)]
    assert tail.cursor == "15-0"
    assert tail.skip(Place("g", "e2", 15, 5, 2)) == [
        Notice(5, 15, "close", "**"),
        Renewed("e2", 15),
    ]
    assert tail.cursor == "15-2"
    assert "were missed" in caplog.text


def test_entries_of_another_generation_are_no_news() -> None:
    """They were asked for before the server lost what it had, and arrive after that is known."""
    listener, tail = Listener(), EventTail()
    news = EventNews(listener, tail, lambda *_: None)
    news.open(Place("g1", "e1", 10, 0, 0))
    turns = tail.turns
    news.open(Place("g2", "e2", 0, 0, 0))
    news.take(turns, [events(11, 10, 0, "a", b"late")])
    news.skip(turns, Place("g1", "e1", 20, 0, 0))
    news.skip(tail.turns, Place("g1", "e1", 20, 0, 0))
    news.take(tail.turns, [events(1, 0, 0, "a", b"first")])
    assert [entry.frame for entry in listener.entries] == [b"first"]
    assert listener.started_at == [("e1", 10), ("e2", 0)]


def test_entries_after_a_place_that_the_server_has_lost_are_asked_for_again() -> None:
    """The notice of a new epoch has the place of one that was lost: it may not be passed over."""
    listener, tail = Listener(), EventTail()
    news = EventNews(listener, tail, lambda *_: None)
    news.open(Place("g", "e", 2, 0, 0))
    news.take(tail.turns, [notice(2, 1, 2, 0, "close", "x")])
    turns, cursor = tail.turns, tail.cursor
    news.open(Place("g", "e", 2, 0, 0))  # a replica without the notice has taken over
    assert (cursor, tail.cursor) == ("2-1", "2-0")
    renewed, event = notice(2, 1, 2, 0, "epoch", "f"), events(1000, 2, 1, "a", b"next")
    news.take(turns, [event])
    news.skip(turns, Place("g", "f", 1000, 1, 0))
    assert listener.order == ["x"]
    news.take(tail.turns, [renewed, event])
    assert listener.order == ["x", 1000]
    assert listener.started_at == [("e", 2), ("f", 2)]


def test_a_notice_that_nobody_understands_holds_up_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    listener = Listener()
    tail = EventTail()
    news = EventNews(listener, tail, lambda *_: None)
    news.open(Place("g", "e", 10, 0, 0))
    strange = notice(10, 1, 10, 0, "close", "no pattern!")
    news.take(tail.turns, [strange, events(11, 10, 1, "a", b"next")])
    assert listener.order == [11]
    assert "what listens to the channel log failed" in caplog.text


def test_more_is_read_at_once_while_it_is_small() -> None:
    small, large = events(1, 0, 0, "a", b"x" * 100), events(1, 0, 0, "a", b"x" * 1_000_000)
    count = FIRST_ENTRIES
    assert next_count(count, [small] * (count - 1)) == count
    for _ in range(5):
        count = next_count(count, [small] * count)
    assert count == 64
    assert next_count(count, [small]) == count
    assert next_count(count, [large, large, small]) == 1
    assert next_count(1, [large]) == 2
    assert next_count(2, [large] * 2) == 1
