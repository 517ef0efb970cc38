"""Subscriptions that end after an event of some type, however it comes to them."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from sseflask.channels.channel_feed import ChannelFeed
from sseflask.channels.channels import Channels, Ids
from sseflask.channels.event_frames import Types, check_types, encode_event, event_type, has_ended
from sseflask.channels.subscription import Subscription
from sseflask.store.api import Entry, EventLimits
from sseflask.store.names import Pattern
from sseflask.transport.detached.group import DetachedStream, Group
from sseflask.wire import Decoder
from tests.unit.channels.test_channel_feed import NoLog, joined, opened

SECONDS = 10.0
DONE = check_types("done")


@pytest.fixture
def channels() -> Iterator[Channels]:
    made = Channels(lambda: ":memory:", EventLimits(100, 3600, 1 << 30))
    yield made
    made.close()


def published(channels: Channels, channel: str, *events: str) -> list[str]:
    """Publish events; those that are called something else than a digit have it for their type."""
    frames = [encode_event(event, None if event.isdigit() else event) for event in events]
    ids = channels.publish(channel, frames)
    assert isinstance(ids, Ids)
    return ids


def subscribed(channels: Channels, *names: str, after: str | None, until: Types) -> Subscription:
    return channels.subscribe([Pattern.parse(name) for name in names], after, until=until)


def rest(subscription: Subscription) -> list[tuple[str, str]]:
    """The data and ids of all that it gives, to its end."""
    decoder, events = Decoder(), list[tuple[str, str]]()
    try:
        while True:
            got = subscription.get(SECONDS)
            assert got is not None, f"no end after {events}"
            events += [(event.data, event.last_event_id) for event in decoder.feed(got[0])]
    except StopIteration:
        assert subscription.ended
        return events


def test_it_ends_with_that_event_from_the_store(channels: Channels) -> None:
    ids = published(channels, "a", "1", "2", "done", "3", "done")
    for place, after in enumerate(["earliest", *ids[:2]]):
        events = rest(subscribed(channels, "a", after=after, until=DONE))
        assert events == [("1", ids[0]), ("2", ids[1]), ("done", f"{ids[2]}.end")][place:]
    # What counts is what comes after a client's place.
    events = rest(subscribed(channels, "a", after=ids[2], until=DONE))
    assert events == [("3", ids[3]), ("done", f"{ids[4]}.end")]


def test_it_ends_with_that_event_as_it_comes(channels: Channels) -> None:
    subscription = subscribed(channels, "a", after=None, until=DONE)
    assert subscription.get(0.0) is None
    ids = published(channels, "a", "1", "done", "2")
    assert rest(subscription) == [("1", ids[0]), ("done", f"{ids[1]}.end")]
    assert list(subscription.frames()) == []
    assert not channels._per_process.get().feed._audiences


def test_who_waits_in_a_thread_ends(channels: Channels) -> None:
    subscription = subscribed(channels, "a", after=None, until=DONE)
    frames: list[bytes] = []
    reader = threading.Thread(target=lambda: frames.extend(subscription.frames()))
    reader.start()
    (id,) = published(channels, "a", "done")
    reader.join(SECONDS)
    assert not reader.is_alive()
    assert frames == [f"id: {id}.end\nevent: done\ndata: done\n\n".encode()]


def test_the_first_of_several_types_on_any_channel_ends_it(channels: Channels) -> None:
    until = check_types(["done", "failed"])
    ids = [*published(channels, "job.1", "1", "other"), *published(channels, "job.2", "failed")]
    published(channels, "job.1", "done")
    events = rest(subscribed(channels, "job.*", "x", after="earliest", until=until))
    assert events == [("1", ids[0]), ("other", ids[1]), ("failed", f"{ids[2]}.end")]


def test_an_event_without_a_type_is_a_message(channels: Channels) -> None:
    ids = published(channels, "a", "done", "1", "2")
    until = check_types("message")
    events = rest(subscribed(channels, "a", after="earliest", until=until))
    assert events == [("done", ids[0]), ("1", f"{ids[1]}.end")]


def test_others_get_all_of_it(channels: Channels) -> None:
    """Its id is the same for a subscriber that does not end with it."""
    subscription = subscribed(channels, "a", after=None, until=frozenset())
    ids = published(channels, "a", "done", "1", "stop")
    last = rest(subscribed(channels, "a", after=f"{ids[0]}.end", until=check_types("stop")))
    assert last == [("1", ids[1]), ("stop", f"{ids[2]}.end")]
    decoder, seen = Decoder(), list[str]()
    while len(seen) < 3:
        got = subscription.get(SECONDS)
        assert got is not None
        seen += [event.last_event_id for event in decoder.feed(got[0])]
    assert seen == ids


def test_a_forgotten_event_is_reported_before_the_end(channels: Channels) -> None:
    (old,) = published(channels, "a", "1")
    foreign = f"zzzz-{old.rpartition('-')[2]}"
    (done,) = published(channels, "a", "done")
    events = rest(subscribed(channels, "a", after=foreign, until=DONE))
    assert [id for _, id in events][1:] == [old, f"{done}.end"]
    assert '"reason":"epoch"' in events[0][0]


# -- detached --------------------------------------------------------------------------------------


def entry(number: int, type: str | None = None) -> Entry:
    return Entry(number, "a", encode_event(f"{number}", type))


def detached(feed: ChannelFeed, until: Types) -> Group:
    one = Subscription(feed, NoLog(), [Pattern.parse("a")], feed.cursor, until=until)
    assert list(one.history()) == []
    group = one.join(True, 15.0)
    assert group is not None
    group.add(DetachedStream(-1, group, 0.0, 0))
    return group


def test_a_group_is_sent_all_up_to_the_end_and_ends() -> None:
    feed = opened()
    ends, goes_on = detached(feed, DONE), joined(feed, "a")
    assert ends is not goes_on
    batch = feed.deliver([entry(1), entry(2, "done"), entry(3), entry(4, "done")])
    bodies = dict(batch)
    assert bodies[ends].endswith(b"id: e-2.end\nevent: done\ndata: 2\n\n")
    assert bodies[ends].count(b"data:") == 2
    assert bodies[goes_on].count(b"data:") == 4
    assert b".end" not in bodies[goes_on]
    assert batch.ended == (ends,)


def test_who_comes_while_a_group_is_ending_is_not_of_it() -> None:
    feed = opened()
    ends = detached(feed, DONE)
    assert feed.deliver([entry(1, "done")]).ended == (ends,)
    late = detached(feed, DONE)
    assert late is not ends
    assert list(feed.deliver([entry(2)])) == [(late, b"id: e-2\ndata: 2\n\n")]
    ends.remove(ends.all_streams[0])
    assert feed.count(Pattern.parse("a")) == 1


def test_an_end_before_a_clients_place_does_not_end_it() -> None:
    """The tail of its worker is behind: what it has seen elsewhere comes once more to the feed."""
    feed = opened()
    start = feed.cursor
    one = Subscription(feed, NoLog(), [Pattern.parse("a")], type(start)(start.epoch, 2), until=DONE)
    assert one._enter() == b""
    feed.deliver([entry(1), entry(2, "done"), entry(3)])
    feed.deliver([entry(4, "done"), entry(5)])
    assert b"".join(one.history()) == b"id: e-3\ndata: 3\n\nid: e-4.end\nevent: done\ndata: 4\n\n"
    assert one.ended


# -- types and ids ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "retry", "type"),
    [
        (None, None, b"message"),
        ("", None, b"message"),
        ("message", None, b"message"),
        ("done", None, b"done"),
        ("done", 100, b"done"),
        (None, 100, b"message"),
        ("event: x", None, b"event: x"),
        ("übung", 5, "übung".encode()),
    ],
)
def test_the_type_of_a_stored_event(event: str | None, retry: int | None, type: bytes) -> None:
    assert event_type(encode_event("event: no\nretry: 5", event, retry)) == type


@pytest.mark.parametrize("types", [[], "", [""], ["done", ""], "a\nb", "gap", ["failure"], [1]])
def test_what_can_be_no_type(types: str | list[str]) -> None:
    with pytest.raises(ValueError, match=r"type"):
        check_types(types)


@pytest.mark.parametrize(
    ("id", "ended"),
    [
        ("k3-7.end", True),
        ("k3-7", False),
        ("k3-7.end.end", False),
        ("k3.end", False),
        ("earliest.end", False),
        (".end", False),
        ("", False),
    ],
)
def test_the_id_of_an_end(id: str, ended: bool) -> None:
    assert has_ended(id) is ended
