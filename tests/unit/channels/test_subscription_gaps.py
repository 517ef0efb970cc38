"""What a subscription says of events that it can't give, if its store changes while it reads."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from sseflask.channels import subscription as limits
from sseflask.channels.channel_feed import ChannelFeed
from sseflask.channels.event_frames import Cursor, encode_event, frame
from sseflask.channels.subscription import Subscription
from sseflask.errors import Failure
from sseflask.store.api import Entry, History, HistoryQuery, Missing
from sseflask.store.names import Pattern
from sseflask.wire import Decoder

A = Pattern.parse("a")


class Store:
    """Events 1 to ``newest`` of one channel; something may happen while it is read."""

    def __init__(self, feed: ChannelFeed, epoch: str, newest: int) -> None:
        self.feed = feed
        self.epoch = epoch
        self.newest = newest
        self.queries: list[HistoryQuery] = []
        self.meanwhile: Callable[[], None] | None = None

    def replace(self, epoch: str, newest: int) -> None:
        self.epoch, self.newest = epoch, newest
        self.feed.restart(epoch, newest)

    def history(self, query: HistoryQuery) -> History:
        assert len(self.queries) < 10, "it asks again and again"
        self.queries.append(query)
        entries = [entry(number) for number in range(query.after + 1, self.newest + 1)]
        missing = [Missing(A, 1, self.newest)] if query.missing == "all" else []
        answer = History(self.epoch, entries, self.newest, missing, self.newest)
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return answer


def entry(number: int) -> Entry:
    return Entry(number, "a", encode_event(str(number)))


def opened(position: int) -> tuple[ChannelFeed, Store]:
    feed = ChannelFeed()
    feed.restart("e", position)
    return feed, Store(feed, "e", position)


def subscribed(feed: ChannelFeed, store: Store, presented: str) -> Subscription:
    return Subscription(feed, store, [A], feed.cursor, presented)


def gap_and_rest(given: list[bytes]) -> tuple[dict[str, object], str, list[str]]:
    """The one gap, its id, and the ids of the events after it."""
    gap, *events = Decoder().feed(b"".join(given))
    assert gap.event == "gap"
    assert all(event.event == "message" for event in events)
    return json.loads(gap.data), gap.last_event_id, [event.last_event_id for event in events]


def test_a_page_of_a_store_that_was_replaced_meanwhile_is_not_given() -> None:
    feed, store = opened(3)
    store.meanwhile = lambda: store.replace("f", 2)
    gap, id, rest = gap_and_rest(list(subscribed(feed, store, "e-1").history()))
    assert (gap["reason"], gap["last_event_id"], id) == ("epoch", "e-1", "f-0")
    assert rest == ["f-1", "f-2"]


def test_nor_is_one_of_a_store_of_which_the_feed_does_not_know_yet() -> None:
    feed, store = opened(3)
    store.epoch, store.newest = "f", 2
    store.meanwhile = lambda: setattr(store, "meanwhile", lambda: feed.restart("f", 2))
    subscription = subscribed(feed, store, "e-1")
    gap, id, rest = gap_and_rest(list(subscription.history()))
    assert (gap["reason"], gap["last_event_id"], id) == ("epoch", "e-1", "f-0")
    assert rest == ["f-1", "f-2"]
    assert [query.missing for query in store.queries] == ["trimmed", "trimmed", "all"]


def test_a_gap_of_an_epoch_that_is_over_meanwhile_is_reported_of_the_next() -> None:
    feed, store = opened(3)
    store.meanwhile = lambda: store.replace("f", 1)
    gap, id, rest = gap_and_rest(list(subscribed(feed, store, "x-7").history()))
    assert (gap["reason"], gap["last_event_id"], id) == ("epoch", "x-7", "f-0")
    assert (gap["oldest"], gap["newest"]) == ("f-1", "f-1")
    assert rest == ["f-1"]


def test_a_place_that_is_unknown_stays_so_if_the_store_is_replaced() -> None:
    feed, store = opened(3)
    store.meanwhile = lambda: store.replace("f", 2)
    gap, id, rest = gap_and_rest(list(subscribed(feed, store, "nonsense").history()))
    assert (gap["reason"], gap["last_event_id"], id) == ("unknown", "nonsense", "f-2")
    assert rest == []


def test_after_an_unknown_place_nothing_comes_that_was_stored_before() -> None:
    """Other processes may have stored events that are not delivered here yet."""
    feed, store = opened(3)
    store.newest = 5
    subscription = subscribed(feed, store, "e-9")
    gap, id, rest = gap_and_rest([next(subscription.history())])
    assert (gap["reason"], gap["newest"], id, rest) == ("unknown", "e-5", "e-5", [])
    feed.deliver([entry(4), entry(5), entry(6)])
    assert list(subscription.history()) == [frame("e", entry(6))]


def test_an_epoch_that_ends_while_it_waits_is_a_gap_from_where_it_was() -> None:
    feed, store = opened(3)
    subscription = subscribed(feed, store, "e-2")
    assert list(subscription.history()) == [frame("e", entry(3))]
    store.replace("f", 1)
    gap, id, rest = gap_and_rest(list(subscription.history()))
    assert (gap["reason"], gap["last_event_id"], id) == ("epoch", str(Cursor("e", 3)), "f-0")
    assert rest == ["f-1"]


def test_a_client_that_has_more_than_was_delivered_here_waits_for_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    feed, store = opened(3)
    store.newest = 5
    waited: list[int] = []

    def wait_for(number: int, _seconds: float) -> bool:
        waited.append(number)
        feed.deliver([entry(4), entry(5)])
        return True

    monkeypatch.setattr(feed, "wait_for", wait_for)
    subscription = subscribed(feed, store, "e-5")
    assert list(subscription.history()) == []
    assert waited == [5]
    assert subscription.join(True, 15.0) is not None


def test_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_TAIL_SECONDS", 0.0)
    feed, store = opened(3)
    store.newest = 5
    with pytest.raises(Failure) as caught:
        subscribed(feed, store, "e-5").get(0.0)
    assert (caught.value.status, caught.value.code) == (503, "log_unavailable")


def test_what_is_trimmed_is_a_gap_once_all_was_given_that_there_was() -> None:
    """Of what was trimmed before ``earliest`` nothing is said."""
    feed, store = opened(0)
    subscription = subscribed(feed, store, "earliest")
    assert list(subscription.history()) == []
    store.newest = 2
    feed.skip(2)
    assert list(subscription.history()) == [frame("e", entry(1)) + frame("e", entry(2))]
    assert [query.missing for query in store.queries] == ["trimmed"]
    feed, store = opened(2)
    assert len(list(subscribed(feed, store, "earliest").history())) == 1
    assert [query.missing for query in store.queries] == ["none"]


def test_one_that_is_closed_while_it_is_behind_gets_nothing_from_its_queue() -> None:
    """Otherwise its client would come back with that event's id, and without those before it."""
    feed, store = opened(3)
    subscription = subscribed(feed, store, "e-3")
    assert list(subscription.history()) == []
    feed.skip(5)
    feed.deliver([entry(6)])
    feed.close(A)
    (last,) = subscription.history()
    assert last.startswith(b"retry: ")
    assert store.queries == []


def test_one_that_enters_after_more_closes_than_are_remembered_ends() -> None:
    feed, store = opened(0)
    subscription = subscribed(feed, store, "e-0")
    for _ in range(1001):
        feed.close(Pattern.parse("another"))
    (last,) = subscription.history()
    assert last.startswith(b"retry: ")
    assert (subscription.ended, subscription.reason) == (True, "closed")
    assert list(subscribed(feed, store, "e-0").history()) == []
