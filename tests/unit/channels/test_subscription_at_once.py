"""Subscriptions that have nothing to read join their group at once; others don't."""

from __future__ import annotations

from typing import Any

import pytest

from sseflask.channels.channel_feed import ChannelFeed
from sseflask.channels.event_frames import EARLIEST, Cursor
from sseflask.channels.subscription import Subscription
from sseflask.store.api import Entry
from sseflask.store.names import Pattern

EPOCH = "abc"


@pytest.fixture
def feed() -> ChannelFeed:
    feed = ChannelFeed()
    feed.restart(EPOCH, 7)
    return feed


def subscription(
    feed: ChannelFeed, number: int = 7, epoch: str = EPOCH, presented: str | None = None
) -> Subscription:
    reader: Any = None  # nothing is read
    return Subscription(
        feed, reader, [Pattern.parse("a")], Cursor(epoch, number), presented, b"id: 7\n\n"
    )


def test_a_new_one_joins_and_gets_what_comes_next(feed: ChannelFeed) -> None:
    one = subscription(feed)
    assert one.may_join_at_once
    joined = one.join_at_once(True, 15.0)
    assert joined is not None
    opening, group = joined
    assert opening == b"id: 7\n\n"
    assert feed.deliver([Entry(8, "a", b"data: 8\n\n")]) == [(group, b"id: abc-8\ndata: 8\n\n")]
    one.abandon()
    assert one.join_at_once(True, 15.0) is None


def test_equal_ones_are_in_one_group(feed: ChannelFeed) -> None:
    groups = [subscription(feed).join_at_once(True, 15.0) for _ in range(2)]
    assert groups[0] == groups[1]


@pytest.mark.parametrize(
    "behind", [{"number": 6}, {"number": 8}, {"epoch": "def"}, {"presented": "abc-7"}]
)
def test_one_elsewhere_does_not(feed: ChannelFeed, behind: dict[str, Any]) -> None:
    one = subscription(feed, **behind)
    assert one.join_at_once(True, 15.0) is None
    assert one.may_join_at_once == ("presented" not in behind)


def test_one_from_the_start_on_does_not(feed: ChannelFeed) -> None:
    assert not subscription(feed, presented=EARLIEST).may_join_at_once


def test_one_that_was_closed_meanwhile_does_not(feed: ChannelFeed) -> None:
    one = subscription(feed)
    feed.close(Pattern.parse("*"))
    assert one.join_at_once(True, 15.0) is None


def test_one_that_has_been_advanced_does_not(feed: ChannelFeed) -> None:
    one = subscription(feed)
    assert list(one.history()) == [b"id: 7\n\n"]
    assert one.join_at_once(True, 15.0) is None
