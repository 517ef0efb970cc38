from __future__ import annotations

from sseflask.channels.channel_feed import ChannelFeed
from sseflask.channels.event_frames import encode_event
from sseflask.channels.subscription import Subscription
from sseflask.store.api import Entry, History, HistoryQuery
from sseflask.store.catch_up import QUEUE
from sseflask.store.names import Pattern
from sseflask.transport.detached.group import DetachedStream, Group


class NoLog:
    def history(self, query: HistoryQuery) -> History:
        raise AssertionError(f"there was nothing to read from the store: {query}")


def subscription(feed: ChannelFeed, *names: str) -> Subscription:
    return Subscription(feed, NoLog(), [Pattern.parse(name) for name in names], feed.cursor)


def opened() -> ChannelFeed:
    feed = ChannelFeed()
    feed.restart("e", 0)
    return feed


def entry(number: int, channel: str = "a") -> Entry:
    return Entry(number, channel, encode_event(f"{number}"))


def joined(feed: ChannelFeed, *names: str) -> Group:
    """A group with a member, as if a stream had been detached."""
    one = subscription(feed, *names)
    assert list(one.history()) == []
    group = one.join(True, 15.0)
    assert group is not None
    group.add(DetachedStream(-1, group, 0.0, 0))
    return group


def test_who_wants_the_same_is_in_one_group_whatever_the_order_of_the_names() -> None:
    feed = opened()
    assert joined(feed, "a", "b.*") is joined(feed, "b.*", "a", "a")
    assert joined(feed, "a") is not joined(feed, "b")


def test_other_heartbeats_and_other_framing_are_other_groups() -> None:
    feed = opened()
    groups = set()
    for chunked in (True, False):
        for heartbeat in (1.0, 2.0):
            one = subscription(feed, "a")
            assert list(one.history()) == []
            groups.add(one.join(chunked, heartbeat))
    assert len(groups) == 4
    assert {group for group, _ in feed.deliver([entry(1)])} == groups


def test_an_event_is_sent_once_to_who_asks_for_it_in_two_ways() -> None:
    feed = opened()
    group = joined(feed, "a", "*", "**")
    ((to, body),) = feed.deliver([entry(1), entry(2, "b"), entry(3, "a.b")])
    assert to is group
    assert body.count(b"id: e-") == 3


def test_each_gets_its_own_and_nobody_is_asked_for_what_nobody_wants() -> None:
    feed = opened()
    one, other = joined(feed, "a"), joined(feed, "b.*")
    batch = dict(feed.deliver([entry(1, "a"), entry(2, "b.1"), entry(3, "c"), entry(4, "a")]))
    assert batch[one] == b"id: e-1\ndata: 1\n\nid: e-4\ndata: 4\n\n"
    assert batch[other] == b"id: e-2\ndata: 2\n\n"
    assert feed.position == 4
    assert feed.deliver([entry(5, "c")]) == []


def test_nothing_is_left_of_those_that_have_gone() -> None:
    feed = opened()
    for names in (("a",), ("a", "b.*"), ("**",)):
        group = joined(feed, *names)
        group.remove(group.all_streams[0])
        waiting = subscription(feed, *names)
        assert list(waiting.history()) == []
        waiting.close()
    assert feed.deliver([entry(1)]) == []
    assert not feed._audiences
    assert not feed._named
    assert not feed._wild


def test_wildcards_that_come_and_go_are_noticed() -> None:
    feed = opened()
    first = joined(feed, "a.*")
    assert [group for group, _ in feed.deliver([entry(1, "a.1")])] == [first]
    second = joined(feed, "**")
    assert {group for group, _ in feed.deliver([entry(2, "a.1")])} == {first, second}
    first.remove(first.all_streams[0])
    assert [group for group, _ in feed.deliver([entry(3, "a.1")])] == [second]


def test_what_many_groups_get_is_there_once() -> None:
    """If each person has a channel beside a common one, there are as many groups as people."""
    feed = opened()
    for number in range(3):
        joined(feed, "news", f"user.{number}")
    for entries in ([entry(1, "news")], [entry(2, "news"), entry(3, "news")]):
        bodies = [body for _, body in feed.deliver(entries)]
        assert len(bodies) == 3
        assert len({id(body) for body in bodies}) == 1


def test_entries_behind_what_was_skipped_are_not_sent() -> None:
    feed = opened()
    group = joined(feed, "a")
    assert feed.skip(5) == [group]
    assert feed.deliver([entry(3), entry(4)]) == []
    assert feed.position == 5


def test_who_falls_far_behind_goes_back_to_the_store() -> None:
    feed = opened()
    read: list[int] = []

    class Fake(NoLog):
        """Just enough of a store to see what is read from it."""

        def history(self, query: HistoryQuery) -> History:
            read.append(query.after)
            return History("e", [], QUEUE + 1, [], QUEUE + 2)

    one = Subscription(feed, Fake(), [Pattern.parse("a")], feed.cursor)
    assert list(one.history()) == []
    feed.deliver([entry(number) for number in range(1, QUEUE + 2)])
    feed.deliver([entry(QUEUE + 2)])
    assert list(one.history()) == [b"id: e-%d\ndata: %d\n\n" % (QUEUE + 2, QUEUE + 2)]
    assert read == [0]


def test_waiting_for_a_number() -> None:
    feed = opened()
    assert not feed.wait_for(1, 0.0)
    feed.deliver([entry(1)])
    assert feed.wait_for(1, 0.0)


def test_who_is_slow_is_counted_too() -> None:
    feed = opened()
    group, other = joined(feed, "user.7", "news"), joined(feed, "user.**")
    second = DetachedStream(-2, group, 0.0, 0)
    group.add(second)
    group.mark_slow(second)
    counts = {"user.7": 2, "user.*": 2, "user.**": 3, "**": 3, "news": 2, "new.*": 0, "u": 0}
    assert {name: feed.count(Pattern.parse(name)) for name in counts} == counts
    assert feed.close(Pattern.parse("user.*")) == [group]
    assert feed.close(Pattern.parse("**")) == [group, other]
    group.remove(second)
    other.remove(other.all_streams[0])
    assert feed.count(Pattern.parse("**")) == 1
